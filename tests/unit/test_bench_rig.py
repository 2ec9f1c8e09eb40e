"""The measuring instruments themselves: a bench that miscounts would lie about every gateway alike."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from loadtest import contestants, machine, report
from loadtest.bench import parse_options
from loadtest.contestants import Absent, Contestant, Running, StartFailed
from loadtest.figures import DIRECT, Figures, Footprint, Goals, Sample, Workload, judge
from loadtest.generator import Job, Result, fault_in, percentiles, run_job
from loadtest.payloads import (
    ANSWER_BODY_BYTES,
    LEAK_MARK,
    REQUEST_BODY_BYTES,
    STREAM_EVENTS,
    VARIANTS,
    Answer,
    Call,
    calls,
    plain_answer,
    stream_answer,
)
from loadtest.persons import card, cnpj, cpf, person
from loadtest.plot import Panel, draw
from loadtest.provider import Counters, Pacer, Provider, request_size
from loadtest.thresholds import Tally, percentile, server_timings
from loadtest.thresholds import judge as judge_load

PLAIN = Workload("plain", Answer.PLAIN, with_findings=False, connections=4)
STREAM = Workload("stream", Answer.STREAM_PACED, with_findings=False, connections=4)


def test_stat_line_with_spaces_and_brackets_in_the_name_is_read() -> None:
    """A process may call itself anything; the fields after the name must not shift."""
    line = "42 (a) odd (name) S 7 42 42 0 -1 4194304 1 0 0 0 150 50 3 4 20 0 1 0 99 1000 77 18446744073709551615"

    stat = machine.parse_stat(line)

    assert machine.ProcessStat(pid=42, parent=7, own_ticks=200, reaped_ticks=7, rss_pages=77) == stat


def test_family_holds_grandchildren_and_no_strangers() -> None:
    """A gateway such as nginx works in a child process; its CPU must be found, and nobody else's."""
    tree = {10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    processes = [machine.ProcessStat(pid, parent, 0, 0, 0) for pid, parent in tree.items()]

    assert [10, 11, 12] == [member.pid for member in machine.family(10, processes)]


def test_cpu_of_a_child_is_counted_while_it_lives_and_after() -> None:
    """CPU burnt in a child counts for the tree, even when the child has ended before we look."""
    burn = "import time\nwhile time.process_time() < 0.1: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('x', flush=True); input()"
    before_ns = machine.family_cpu_ns(os.getpid())
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used_ns = machine.family_cpu_ns(process.pid)
        grown_ns = machine.family_cpu_ns(os.getpid()) - before_ns
        process.communicate(b"\n")

    assert 90_000_000 <= used_ns < 2_000_000_000
    assert grown_ns >= used_ns


@pytest.mark.parametrize("answer", list(Answer))
@pytest.mark.parametrize("with_findings", [False, True])
def test_requests_have_the_stated_size_and_differ(answer: Answer, with_findings: bool) -> None:
    """Sizes are part of the figures' meaning; equal requests would invite a cache."""
    made = calls(answer, with_findings=with_findings, host="127.0.0.1:1")

    bodies = [call.wire.partition(b"\r\n\r\n")[2] for call in made]
    assert {REQUEST_BODY_BYTES} == {len(body) for body in bodies}
    assert VARIANTS == len(set(bodies))
    assert all(with_findings == (LEAK_MARK in call.wire) for call in made)
    assert all(call.must_hold in call.wire for call in made)
    assert all(json.loads(body)["model"] == "gpt-4o-mini" for body in bodies)


def test_answers_have_the_stated_shape() -> None:
    """0.8 KB plain; sixty events of about 210 bytes, then [DONE]."""
    plain = plain_answer(with_findings=False).partition(b"\r\n\r\n")[2]
    head, *chunks = stream_answer(with_findings=True)

    assert ANSWER_BODY_BYTES == len(plain)
    assert b"transfer-encoding: chunked" in head
    assert STREAM_EVENTS + 1 == len(chunks)
    assert all(180 <= len(chunk) <= 240 for chunk in chunks[:-1])
    assert b"[EMAIL-1]" not in b"".join(chunks)  # it comes in two pieces


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _mod11(digits: str, weights: list[int]) -> int:
    rest = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False)) % 11
    return 0 if rest < 2 else 11 - rest


_CNPJ_WEIGHTS = [6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize("seed", [0, 1, 7, 4_096, 999_999, 9_999_999])
def test_made_up_numbers_are_valid(seed: int) -> None:
    """A number that fails its checksum would rightly not be redacted, and the test would blame the sidecar."""
    someone = person(seed)
    bare = str.maketrans("", "", ".-/")
    person_number, company_number = someone.cpf.translate(bare), someone.cnpj.translate(bare)

    assert 11 == len(person_number)
    assert 14 == len(company_number)
    for digits, weights in ((person_number, [*range(11, 1, -1)]), (company_number, _CNPJ_WEIGHTS)):
        assert _mod11(digits, weights[1:]) == int(digits[-2])
        assert _mod11(digits, weights) == int(digits[-1])
    assert _luhn(someone.card.replace(" ", ""))


def test_known_numbers_come_out_of_the_arithmetic() -> None:
    """The arithmetic is held against numbers from the public documentation of the formats."""
    assert "111.444.777-35" == cpf(111_444_777)
    assert "11.222.333/0001-81" == cnpj(11_222_333)
    assert card(5).startswith("4532 01")


def _job(answer: Answer, *, with_findings: bool = False, restores: bool = False, port: int = 0) -> Job:
    return Job(port, answer, with_findings, connections=4, seconds=0.2, restores=restores)


def _body(pieces: list[bytes]) -> bytes:
    """The de-chunked body of a stream."""
    return b"".join(piece.partition(b"\r\n")[2].partition(b"\n\n")[0] + b"\n\n" for piece in pieces[1:])


def test_whole_stream_has_no_fault_and_a_short_one_has() -> None:
    """A gateway that loses events must not look fast."""
    pieces = stream_answer(with_findings=False)
    job, call = _job(Answer.STREAM_FULL), Call(b"", b"")

    assert fault_in(job, call, 200, _body(pieces)) is None
    assert "no [DONE]" == fault_in(job, call, 200, _body(pieces[:-1]))
    assert "59 events" == fault_in(job, call, 200, _body(pieces[:5] + pieces[6:]))
    assert "status 503" == fault_in(job, call, 503, b"")


def test_answer_must_hold_the_restored_value_when_the_gateway_redacts() -> None:
    """Redaction that is switched off, or does not restore, would be cheap."""
    body = plain_answer(with_findings=True).partition(b"\r\n\r\n")[2]
    call = Call(b"", b"ana@example.com")
    restored = body.replace(b"[EMAIL-1]", b"ana@example.com")

    assert "value not restored" == fault_in(_job(Answer.PLAIN, with_findings=True, restores=True), call, 200, body)
    assert fault_in(_job(Answer.PLAIN, with_findings=True, restores=True), call, 200, restored) is None
    assert "placeholder lost" == fault_in(_job(Answer.PLAIN, with_findings=True), call, 200, restored)


def test_value_restored_in_pieces_over_two_events_counts() -> None:
    """Where a restored value is cut does not matter to the app, which joins the pieces."""
    deltas = [{"choices": [{"delta": {"content": piece}}]} for piece in ("ana@exa", "mple.com")]
    body = b"".join(b"data: " + json.dumps(delta).encode() + b"\n\n" for delta in deltas) + b"data: [DONE]\n\n"
    job = _job(Answer.STREAM_FULL, with_findings=True, restores=True)

    assert fault_in(job, Call(b"", b"ana@example.com"), 200, body) is None
    assert "value not restored" == fault_in(job, Call(b"", b"bob@example.com"), 200, body)


def test_percentiles_are_those_of_the_sorted_values() -> None:
    """Latency figures come from here alone."""
    found = percentiles([value / 1000 for value in range(100, 0, -1)])

    assert {"p50": 51.0, "p90": 91.0, "p99": 100.0, "mean": 50.5} == {
        name: round(value, 6) for name, value in found.items()
    }
    assert {} == percentiles([])


@pytest.fixture
async def provider() -> AsyncIterator[tuple[int, Counters]]:
    loop, counters = asyncio.get_running_loop(), Counters()
    pacer = Pacer(loop)
    server = await loop.create_server(lambda: Provider(counters, loop, pacer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], counters


@pytest.mark.parametrize("with_findings", [False, True])
@pytest.mark.parametrize("answer", [Answer.PLAIN, Answer.STREAM_FULL])
async def test_closed_loop_counts_what_the_provider_counts(
    provider: tuple[int, Counters], answer: Answer, with_findings: bool
) -> None:
    """Both ends agree on requests, connections and values seen; nothing is reported as an error."""
    port, counters = provider
    result = await run_job(_job(answer, with_findings=with_findings, port=port))

    assert {} == result.errors
    assert counters.requests == result.answered > 0
    assert 4 == counters.connections
    assert (counters.requests if with_findings else 0) == counters.leaks
    assert (result.answered * STREAM_EVENTS if answer is not Answer.PLAIN else 0) == result.events


async def test_fixed_rate_sends_the_rate_and_no_more(provider: tuple[int, Counters]) -> None:
    """An open loop is one only when it keeps its rate whatever the answers do."""
    port, counters = provider
    result = await run_job(Job(port, Answer.PLAIN, with_findings=False, connections=8, seconds=0.5, rate=200))

    assert 97 <= result.answered <= 101
    assert counters.requests == result.answered
    assert {} == result.errors


async def test_paced_streams_come_event_by_event(provider: tuple[int, Counters]) -> None:
    """Events that arrive together would cost a gateway less than they do in life."""
    port, counters = provider
    result = await run_job(Job(port, Answer.STREAM_PACED, with_findings=False, connections=8, seconds=0.5))

    assert {} == result.errors
    assert 8 == result.answered
    assert result.reads >= result.events == 8 * STREAM_EVENTS
    assert 1.1 <= result.latency_ms["p50"] / 1000 <= 1.6
    assert 0 == counters.streams_cut


async def test_lost_connections_are_errors_and_do_not_hang_the_run() -> None:
    """A gateway that dies must end the job, not the bench."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        result = await run_job(_job(Answer.PLAIN, port=server.sockets[0].getsockname()[1]))

        refused = await run_job(_job(Answer.PLAIN, port=contestants.free_port()))

    assert 0 == result.answered
    assert {"connection lost": 4} == result.errors
    assert {"cannot connect: ConnectionRefusedError": 1} == refused.errors


def test_provider_finds_the_end_of_requests_of_either_framing() -> None:
    """A gateway may send the body by length or in chunks; both are one request."""
    by_length = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    in_chunks = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    assert len(by_length) == request_size(by_length + b"GET")
    assert len(in_chunks) == request_size(in_chunks + b"GET")
    assert request_size(in_chunks[:-4]) is None
    assert request_size(b"POST / HTTP/1.1\r\n") is None


def _sample(gateway: str, number: int, cpu_s: float, workload: Workload = PLAIN, p50_ms: float = 1.0) -> Sample:
    times = {"p50": p50_ms, "p99": p50_ms * 2}
    result = Result(answered=1000, elapsed_s=2.0, latency_ms=times, first_byte_ms=times)
    return Sample(gateway, workload.name, number, result, gateway_cpu_s=cpu_s)


def _drifting() -> Figures:
    """Three rounds on a machine that gets three times slower: Readygate costs 1.2 x Envoy in each."""
    samples = []
    for number, speed in enumerate((1.0, 2.0, 3.0)):
        samples += [_sample("envoy", number, 0.1 * speed), _sample("readygate", number, 0.12 * speed)]
    return Figures([PLAIN], samples)


def test_ratios_are_taken_within_a_round() -> None:
    """The machine's drift hits both alike, so it must cancel out."""
    figures = _drifting()

    assert 1.2 == pytest.approx(figures.cpu_ratio("readygate", "envoy", PLAIN))
    assert 200.0 == pytest.approx(figures.cpu_us("envoy", PLAIN))
    assert 500.0 == figures.per_second("envoy", PLAIN)
    assert figures.cpu_ratio("readygate", "nginx", PLAIN) is None


def test_streams_are_counted_by_the_events_the_provider_sent() -> None:
    """A gateway that joins events must not be charged for fewer."""
    figures = Figures([STREAM], [_sample("envoy", 0, 1.2, STREAM)])

    assert 1.2e6 / (1000 * STREAM_EVENTS) == pytest.approx(figures.cpu_us("envoy", STREAM))


def test_added_latency_is_against_direct_of_the_same_round() -> None:
    """What provider and generator take by themselves is not the gateway's."""
    samples = [_sample(DIRECT, 0, 0, STREAM, p50_ms=0.4), _sample("envoy", 0, 0.1, STREAM, p50_ms=0.9)]

    assert 0.5 == pytest.approx(Figures([STREAM], samples).added_ms("envoy", STREAM, "p50"))


def test_goal_lines_are_met_missed_and_missed_when_not_measurable() -> None:
    """A goal that nobody could measure has not been reached."""
    figures = _drifting()
    figures.footprints["readygate"] = Footprint(started_s=0.4, idle_mb=90.0, loaded_mb=95.0)

    verdicts = judge(figures, Goals(max_ratio_envoy=1.5, max_idle_mb=80, max_start_s=1.0))
    unmeasured = judge(Figures([PLAIN]), Goals(max_ratio_envoy=1.5))

    assert [True, False, True] == [verdict.is_met for verdict in verdicts]
    assert [False] == [verdict.is_met for verdict in unmeasured]
    assert [] == judge(figures, Goals())


def _report() -> report.Report:
    figures = _drifting()
    figures.workloads.append(STREAM)
    figures.footprints = {name: Footprint(0.1, 50.0, 60.0) for name in ("envoy", "readygate")}
    figures.samples[0].result.errors["connection lost"] = 2
    verdicts = judge(figures, Goals(max_ratio_envoy=1.1))
    absent = [Absent("nginx", "not installed")]
    return report.Report(figures, ["envoy", "readygate"], verdicts, absent, ["one core only"], {"cpu": "test"})


def test_report_says_what_missed_what_failed_and_what_could_not_run() -> None:
    """A reader must not need the raw samples to know what not to trust."""
    text = report.markdown(_report())

    assert "| plain | request | 200.0 | 240.0 | 1.20x |" in text
    assert "| 1.10 | 1.20 | MISSED |" in text
    assert "could not run nginx: not installed" in text
    assert "one core only" in text
    assert "2 x connection lost" in text


def test_report_is_written_in_three_forms(tmp_path: Path) -> None:
    """People, machines and eyes; the JSON keeps every sample."""
    report.write(_report(), tmp_path)

    assert 6 == len(json.loads((tmp_path / "bench.json").read_text())["samples"])
    assert "bench.svg" in (tmp_path / "bench.md").read_text()
    assert "svg" in ET.fromstring((tmp_path / "bench.svg").read_text()).tag  # noqa: S314 - our own text


def test_plot_draws_every_value_and_survives_odd_ones() -> None:
    """Nothing, below zero and markup in a name must not break the picture."""
    panel = Panel("a < b", {"one & two": {"x": 3.0, "y": -1.0}, "none": {}})
    root = ET.fromstring(draw([panel, Panel("empty", {})], ["x", "y"]))  # noqa: S314 - our own text

    assert {"a < b", "one & two", "3", "-1", "empty"} <= {element.text for element in root.iter()}
    assert all(float(bar.get("width", "0")) >= 0 for bar in root.iter() if not bar.get("width", "0").endswith("%"))


def test_gateway_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    """The reason a gateway did not start must be in the report, not in a log nobody opens."""
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]

    with pytest.raises(StartFailed, match=r"exit code 3; no such option"):
        contestants.launch(Contestant("odd", command, contestants.free_port(), tmp_path), core=None)


def test_nothing_of_a_gateway_survives_its_stop(tmp_path: Path) -> None:
    """A worker whose parent was killed would go on using the core that is being measured."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    while len(machine.family(process.pid, machine.all_processes())) < 2:
        machine.pause(0.01)
    worker = machine.family(process.pid, machine.all_processes())[1].pid
    process.kill()
    process.wait()

    Running(Contestant("odd", [], 0, tmp_path), process, 0.0).stop()
    machine.pause(0.1)

    assert all(worker != alive.pid or alive.rss_pages == 0 for alive in machine.all_processes())


def test_config_of_the_sidecar_gets_this_runs_ports(tmp_path: Path) -> None:
    """Two benches on one machine must not meet on a port, and nothing is written beside the checked-in file."""
    config = contestants.REPOSITORY / "loadtest" / "bench-config.yaml"

    made = contestants.readygate(tmp_path, 7001, config)

    assert isinstance(made, Contestant)
    text = (tmp_path / "config.yaml").read_text()
    assert "http://127.0.0.1:7001/v1" in text
    assert f"port: {made.port}" in text
    assert f"port: {made.admin_port}" in text
    assert "1808" not in text.partition("version:")[2]
    assert (tmp_path / "bench-policies" / "default.yaml").exists()


def test_options_choose_workloads_and_refuse_unknown_gateways(tmp_path: Path) -> None:
    """A typo must not lead to a bench of nothing."""
    plan, out = parse_options(
        ["--workloads", "closed loop", "--quick", "--out", str(tmp_path), "--max-ratio-envoy", "1.5"]
    )

    assert ["plain, closed loop", "plain, closed loop, with findings"] == [workload.name for workload in plan.workloads]
    assert (1, 1.0, 1.5, tmp_path) == (plan.rounds, plan.seconds, plan.goals.max_ratio_envoy, out)
    for wrong in (["--gateways", "ngnix"], ["--workloads", "nothing like it"]):
        with pytest.raises(SystemExit) as ended:
            parse_options(wrong)
        assert 2 == ended.value.code


def test_server_timing_is_read_as_sent() -> None:
    """The overhead threshold hangs on this header."""
    assert {"gateway": 1.2, "upstream": 200.3} == server_timings("gateway;dur=1.2, upstream;dur=200.3")
    assert {"gateway": 3.0} == server_timings('cache;desc="hit", gateway;desc="own";dur=3')
    assert {} == server_timings("")


def test_percentile_is_the_nearest_rank() -> None:
    """p95 of a hundred values is the 95th, not an interpolation."""
    assert 95 == percentile(range(1, 101), 95)
    assert 1 == percentile([1], 95)
    assert 0 == percentile([], 95)


def _good_tally() -> Tally:
    return Tally(
        requests=1000,
        failures=5,
        overhead_ms=[1.0] * 950 + [9.0] * 50,
        first_token_ms=[90.0],
        stream_events=100,
        round_trips=50,
        probes=30,
    )


def test_good_run_meets_every_line() -> None:
    """99.5 % success, p95 of 1 ms, every kind of task seen."""
    assert all(line.is_met for line in judge_load(_good_tally(), leaked=0))


def test_each_shortfall_is_one_missed_line() -> None:
    """One cause, one line: a reader sees what broke."""
    slow, failing, silent = _good_tally(), _good_tally(), _good_tally()
    slow.overhead_ms = [1.0] * 94 + [6.0] * 6
    failing.failures = 11
    silent.overhead_ms = []

    for tally, leaked in ((slow, 0), (failing, 0), (silent, 0), (_good_tally(), 1)):
        assert 1 == sum(not line.is_met for line in judge_load(tally, leaked))
    assert not any(line.is_met for line in judge_load(Tally(), leaked=1))
