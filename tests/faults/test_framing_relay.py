"""What crosses the sidecar and what does not, both ways, and providers that break HTTP (HT-06, 07, 14, SE-04, SE-05)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.rawhttp import Answer, RawCaller, chat_body, check_pairs, raw_chat, raw_request
from tests.support.sidecar import Stage, cases, check_refusal, stage

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
SMALL = b'{"id":"x","object":"chat.completion","choices":[]}'


# ---------------------------------------------------------------- HT-06: headers of one hop


def test_hop_headers_of_the_caller_stay_here(ordinary: Stage) -> None:
    """HT-06: they speak of this connection; forwarded they change the meaning of the next."""
    lines = (b"Keep-Alive: timeout=9", b"TE: trailers", b"Trailer: X-T", b"Proxy-Authorization: Basic x", b"Proxy-Connection: close",
             b"Connection: keep-alive, X-Named", b"X-Named: leaks", b"X-Kept: stays", b"x-readygate-user: u-1")  # fmt: skip
    answer = ordinary.ask(raw_chat("hop", *lines))
    names = {name.lower() for name, _ in ordinary.provider.last.headers}

    assert 200 == answer.status
    assert not names & {
        "keep-alive",
        "te",
        "trailer",
        "proxy-authorization",
        "proxy-connection",
        "connection",
        "x-named",
        "x-readygate-user",
    }
    assert "stays" == ordinary.provider.last.header("x-kept")


def test_headers_named_in_any_connection_line_stay_here(ordinary: Stage) -> None:
    """HT-06: Connection may come as several lines, and all of them count."""
    ordinary.ask(raw_chat("hop twice", b"Connection: X-First", b"Connection: X-Second", b"X-First: 1", b"X-Second: 2"))
    names = {name.lower() for name, _ in ordinary.provider.last.headers}

    assert set() == names & {"x-first", "x-second"}


def test_connection_cannot_name_away_what_decides(ordinary: Stage) -> None:
    """HT-06: ``Connection: authorization, content-length`` is an attack on the next hop."""
    answer = ordinary.ask(raw_chat("named", b"Connection: authorization, content-length, content-type, host"))
    entry = ordinary.provider.last

    assert 200 == answer.status
    assert ("application/json", "named") == (entry.header("content-type"), entry.json()["messages"][0]["content"])
    assert all(entry.header(name) for name in ("authorization", "host", "content-length"))


def test_hop_headers_of_the_provider_stay_there(ordinary: Stage) -> None:
    """HT-06: both ways; so does what pretends to be ours."""
    headers = {"Keep-Alive": "timeout=5", "Proxy-Authenticate": "Basic", "Connection": "x-internal, keep-alive", "x-internal": "1",
               "Upgrade": "h2c", "Trailer": "x-t", "x-readygate-id": "forged", "x-readygate-fault": "client", "x-kept": "stays"}  # fmt: skip
    ordinary.provider.script({"body": SMALL.decode(), "headers": headers})
    answer = ordinary.ask(raw_chat("back"))
    names = {name.lower() for name, _ in answer.headers}

    assert 200 == answer.status
    assert not names & {
        b"keep-alive",
        b"proxy-authenticate",
        b"connection",
        b"x-internal",
        b"upgrade",
        b"trailer",
        b"x-readygate-fault",
    }
    assert ("stays", True) == (answer.get("x-kept"), answer.get("x-readygate-id") != "forged")


def test_repeated_end_to_end_headers_keep_order_and_bytes(ordinary: Stage) -> None:
    """Proxies that keep headers in a dict lose repeats; non-ASCII bytes are opaque, not text."""
    ordinary.ask(raw_chat("repeats", b"X-Many: 1", b"X-Many: 2", b"x-many: 3", b"X-Bytes: caf\xc3\xa9 \xff"))
    entry = ordinary.provider.last

    assert ["1", "2", "3"] == entry.header_values("x-many")
    assert "caf\xc3\xa9 \xff" == entry.header("x-bytes")


# ---------------------------------------------------------------- HT-07: values of the caller's in headers of ours

NASTY = [
    "gpt\r\nx-evil: 1",
    "gpt\nx-evil: 1",
    "gpt\r\n\r\nHTTP/1.1 200 OK",
    "gpt\x00\x1b[31m",
    "gpt\x85\u2028x-evil: 1",
    "g" * 100_000,
    "caf\u00e9 \U0001f600",
]


@pytest.mark.parametrize("model", NASTY, ids=["crlf", "lf", "split", "controls", "unicode ends", "long", "non-ascii"])
@pytest.mark.parametrize("prefix", ["", "bare-", "s29-"])
def test_model_name_cannot_make_a_header_line(brittle: Stage, model: str, prefix: str) -> None:
    """HT-07: the model is told back in a header; the strict reader sees no line that was not ours."""
    plain = brittle.ask(raw_chat("x", model=prefix + "gpt"))
    answer = brittle.ask(raw_chat("x", model=prefix + model))

    assert answer.status in (200, 400, 404)
    assert not answer.all("x-evil")
    if answer.status == 200:
        assert {name.lower() for name, _ in plain.headers} == {name.lower() for name, _ in answer.headers}


@pytest.mark.parametrize("model", ["azure-x HTTP/1.1\r\nX-Evil: 1\r\n\r\n", "azure-x\r\nX-Evil: 1", "azure-x/../../admin?", "azure-x y", "azure-x?a=b#c", "azure-x/chat/completions?"],
                         ids=["split", "line", "climb", "space", "query", "path"])  # fmt: skip
def test_model_name_cannot_change_an_azure_path(ordinary: Stage, model: str) -> None:
    """HT-07: a deployment stands in the request line to the provider, where a space or CRLF begins something else."""
    before, asked = len(ordinary.provider.journal.connections), ordinary.asked
    answer = ordinary.ask(raw_chat("azure", model=model))

    assert before <= len(ordinary.provider.journal.connections)
    if ordinary.asked == asked:
        assert answer.status in (400, 404)
        return
    assert asked + 1 == ordinary.asked, "one request became several"
    entry = ordinary.provider.last
    path = entry.path.removesuffix("/chat/completions")
    assert not entry.fault.startswith("unparseable"), entry.fault
    assert not entry.header("x-evil")
    assert "/" not in path.rpartition("/deployments/")[2]
    assert ("api-version=2024-10-21", 1) == (entry.target.partition("?")[2], entry.target.count("?"))


@pytest.mark.parametrize(
    "name", ["x-readygate-app", "x-readygate-user", "x-readygate-conversation", "x-request-id", "user-agent"]
)
def test_identity_header_of_odd_bytes_is_harmless(ordinary: Stage, name: str) -> None:
    """HT-07, AU-10: recorded as text, told back nowhere as a line of its own."""
    value = b'a\xff\xc3\x28 "}{ \\r\\n \xe2\x80\xa8' + b"z" * 2000
    answer = ordinary.ask(raw_chat("odd identity", name.encode() + b": " + value))

    assert answer.status in (200, 403)
    assert ordinary.row(answer)["status"] in ("success", "blocked")


# ---------------------------------------------------------------- HT-14: hostile text


TEXTS = {
    "CR": "one\rtwo\r\rthree",
    "LF LF": "one\n\ntwo\n\n\nthree",
    "a field": 'one\nevent: error\ndata: {"x":1}\n\nid: 9\nretry: 1\n\n',
    "DONE": "data: [DONE]\n\n",
    "U+2028": "one\u2028two\u2029three\u0085four",
    "NUL and BOM": "\ufeffone\x00two\ufeff",
    "emoji": "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "placeholder-like": "[EMAIL-7] [EMAIL-] [EMAIL-",
}


@pytest.mark.parametrize("app", ["", "pii"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_text_of_a_model_makes_no_events(ordinary: Stage, text: str, app: str) -> None:
    """HT-14: what a model says is data, however much it looks like framing."""
    lines = (b"X-Readygate-App: " + app.encode(),) if app else ()
    prompt = "hello" if not app else "my mail is ana@example.com"
    ordinary.provider.script({"content": text})
    answer = ordinary.ask(raw_chat(prompt, *lines, stream=True))
    entry = ordinary.provider.last

    assert text == said(answer)
    # What is held back because it may become a placeholder comes as one more event of its own.
    held = 1 if app and text.endswith("[EMAIL-") else 0
    assert entry.events_sent + held == len([part for part in answer.body.split(b"\n\n") if part.strip()])
    assert 1 == answer.events.count("[DONE]")
    assert b"\nevent:" not in answer.body


def said(answer: Answer) -> str:
    """Return the text of a stream."""
    pieces = [json.loads(data)["choices"] for data in answer.events if data != "[DONE]"]
    return "".join(choices[0]["delta"].get("content") or "" for choices in pieces if choices)


@pytest.mark.parametrize("split", [0, 1, 7])
def test_restored_values_make_no_events(ordinary: Stage, split: int) -> None:
    """HT-14: a value that comes back from the vault passes through JSON's escapes like any other text."""
    prompt = 'echo: first ana"quoted"@example.com then bob@example.com\n\ndata: [DONE]\n\ncall +1 (202) 555-0143'
    answer = ordinary.ask(raw_chat(prompt, b"X-Readygate-App: pii", b"X-Sim-Speech: split=%d" % split, stream=True))

    assert "bob@example.com" not in ordinary.provider.last.body.decode()
    assert prompt.removeprefix("echo: ") == said(answer)
    assert 1 == answer.events.count("[DONE]")
    assert b"\nevent:" not in answer.body


# ---------------------------------------------------------------- providers that break HTTP


BREAKS = {
    "switch": ("switch", 502),
    "CL and TE": ("bad_framing:kind=cl_te", 502),
    "two lengths": ("bad_framing:kind=two_lengths", 502),
    "garbage": ("bad_framing:kind=garbage", 502),
    "version": ("bad_framing:kind=version", 502),
    "status": ("bad_framing:kind=status", 502),
    "bad chunk": ("bad_framing:kind=bad_chunk", 502),
    "negative": ("bad_framing:kind=negative", 502),
    "big head": ("big_head:count=40,size=4KiB", 502),
    "endless 1xx": ("informational:status=103,count=40", 502),
    "redirect 301": ("redirect:status=301", 502),
    "redirect 302": ("redirect:status=302,to=file:///etc/passwd", 502),
    "redirect 303": ("redirect:status=303", 502),
    "redirect 307": ("redirect:status=307", 502),
    "redirect 308": ("redirect:status=308,to=/v1/chat/completions", 502),
    "no body": ("empty", 502),
    "204": ("empty:status=204", 502),
    "304": ("empty:status=304", 502),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "status"), cases(BREAKS))
def test_broken_provider_answer_becomes_one_honest_refusal(brittle: Stage, fault: str, status: int) -> None:
    """HT-06, SE-04: nothing of it crosses, and the next exchange does not meet the connection it came on."""
    rows, asked = brittle.kept_rows(), brittle.asked
    with brittle.caller() as caller:
        caller.send(
            raw_chat(
                "broken", b"X-Sim-Fault: " + fault.encode(), model=f"s{list(BREAKS.values()).index((fault, status))}-x"
            )
        )
        answer = caller.read()
        caller.send(raw_chat("echo: after"))
        after = caller.read()

    assert (status, "after") == (answer.status, after.json()["choices"][0]["message"]["content"])
    check_refusal(answer)
    assert "provider" == answer.get("x-readygate-fault")
    assert [] == answer.all("location") + answer.all("upgrade")
    assert (rows + 2, asked + 2) == (brittle.kept_rows(), brittle.asked)
    brittle.promised[answer.get("x-readygate-id")] = (status, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    ("number", "fault"), [(30, "switch"), (31, "redirect:status=302"), (32, "redirect:status=308")]
)
def test_broken_answer_to_a_request_that_is_only_passed_is_refused_too(brittle: Stage, number: int, fault: str) -> None:
    """SE-04: what policy does not read must not be the way around."""
    answer = brittle.ask(raw_request("GET", f"/v1/s{number}/b1", b"X-Sim-Fault: " + fault.encode()))

    assert 502 == answer.status
    check_refusal(answer)
    assert not answer.all("location")


def test_bytes_behind_an_answer_poison_nobody(ordinary: Stage) -> None:
    """A second answer that nobody asked for would become the next caller's."""
    with ordinary.caller() as caller:
        caller.send(raw_chat("x", b"X-Sim-Fault: bad_framing:kind=extra"))
        assert 200 == caller.read().status
        for n in range(3):
            caller.send(raw_chat(f"echo: clean {n}"))
            assert f"clean {n}" == caller.read().json()["choices"][0]["message"]["content"]


def test_interim_answers_and_trailers_of_a_provider_stay_there(ordinary: Stage) -> None:
    """103 and trailers are for the hop that asked for them."""
    early = ordinary.ask(raw_chat("x", b"X-Sim-Fault: informational:count=3"))
    trailed = ordinary.ask(raw_chat("x", b"X-Sim-Fault: trailers"))
    streamed = ordinary.ask(raw_chat("x", b"X-Sim-Fault: trailers", stream=True))

    assert (200, [], []) == (early.status, early.interim, early.all("link"))
    assert [200, 200] == [trailed.status, streamed.status]
    assert "sk-from-a-trailer" not in trailed.text + streamed.text


def test_early_refusal_of_an_upload_announces_the_end(ordinary: Stage) -> None:
    """The rest of the body is unread, so the connection ends, and the answer says so before it does."""
    data = raw_request("POST", "/v1/files", b"Content-Type: multipart/form-data; boundary=b", b"Content-Length: 400000",
                       b"X-Sim-Fault: early:status=413")  # fmt: skip
    with ordinary.caller() as caller:
        caller.send(data + b"x" * 100_000)  # more than is peeked at for the model
        answer = caller.read()
        end, rest = caller.ending()

    assert (413, "eof", b"") == (answer.status, end, rest)
    assert answer.closes, "a client would put its next request on a connection that is about to end"


def test_cookie_of_a_provider_is_never_sent_back_for_another(ordinary: Stage) -> None:
    """SE-05: a jar shared by callers is a session shared by tenants."""
    first = ordinary.ask(raw_chat("one", b"X-Sim-Speech: set_cookie=tenant=a", b"X-Readygate-User: a"))
    ordinary.ask(raw_chat("two", b"X-Readygate-User: b"))
    ordinary.ask(raw_request("GET", "/v1/models"))

    assert 200 == first.status
    assert [None, None] == [entry.header("cookie") for entry in ordinary.provider.entries[-2:]]


class Listener:
    """A place that must never be called: counts connections and bytes."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.received = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}"

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self.sock.accept()
                self.connections += 1
                with peer, suppress(OSError):
                    peer.settimeout(0.5)
                    self.received += peer.recv(65536)


@pytest.fixture
def elsewhere() -> Iterator[Listener]:
    """A listener outside of the configuration, as a metadata service would be."""
    listener = Listener()
    threading.Thread(target=listener.serve, daemon=True).start()
    yield listener
    with suppress(OSError):
        listener.sock.shutdown(socket.SHUT_RDWR)
    listener.sock.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_never_followed(brittle: Stage, elsewhere: Listener, status: int) -> None:
    """SE-04: a redirect takes the body and sometimes the key to whoever the answer names."""
    fault = f"redirect:status={status},to={elsewhere.url}/v1/chat/completions".encode()
    answers = [
        brittle.ask(raw_chat("x", b"X-Sim-Fault: " + fault, model=f"s{status - 270}-r")),
        brittle.ask(raw_chat("x", b"X-Sim-Fault: " + fault, model=f"s{status - 270}-r", stream=True)),
        brittle.ask(raw_request("GET", f"/v1/s{status - 270}/x", b"X-Sim-Fault: " + fault)),
    ]

    assert {502, 503} >= {answer.status for answer in answers}
    assert (0, b"") == (elsewhere.connections, elsewhere.received)


def test_no_word_of_a_request_chooses_where_it_goes(ordinary: Stage, elsewhere: Listener) -> None:
    """SE-03: upstream addresses come from the configuration alone (litellm#24952, CVE-2025-66405)."""
    url = elsewhere.url
    words = ("api_base", "base_url", "host", "proxy", "endpoint", "azure_endpoint", "custom_host", "url")
    fields = dict.fromkeys(words, url) | {"extra_headers": {"host": url, "x-api-base": url}, "litellm_params": {"api_base": url},
              "metadata": {"api_base": url}, "extra_body": {"base_url": url}}  # fmt: skip
    host = url.removeprefix("http://").encode()
    lines = (b"X-Forwarded-Host: " + host, b"X-Original-URL: " + url.encode(), b"X-Rewrite-URL: /v1/x", b"X-Host: " + host,
             b"X-Portkey-Custom-Host: " + url.encode(), b"X-Api-Base: " + url.encode(), b"Forwarded: host=" + host)  # fmt: skip
    asked = ordinary.asked
    first = ordinary.ask(raw_chat("ssrf", *lines, **fields))
    second = ordinary.ask(raw_request("GET", f"/v1/models?api_base={url}&url={url}", *lines))
    third = ordinary.ask(raw_request("POST", f"/v1/chat/completions?base_url={url}", JSON, body=chat_body("ssrf")))
    fourth = ordinary.ask(raw_request("GET", f"/v1/models/@{host.decode()}/x"))

    assert all(answer.status in (200, 400, 404) for answer in (first, second, third, fourth))
    assert 0 == elsewhere.connections
    assert ordinary.asked - asked <= 4
    assert all(
        entry.header("host") == f"127.0.0.1:{ordinary.provider.port}" for entry in ordinary.provider.entries[-4:]
    )


# ---------------------------------------------------------------- a provider of raw bytes


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, RawProvider]]:
    """A sidecar in front of a provider that says exactly what it is told."""
    with raw_provider() as provider:
        config = 'providers:\n  odd: {{base_url: "' + provider.base_url + '"}}\nlog: {{level: info, format: json}}\n'
        policy = (
            'version: 1\npolicy: raw\nroutes: [{match: {models: ["*"]}, chain: [{provider: odd}], retries: none}]\n'
        )
        with stage(tmp_path_factory.mktemp("raw"), config=config, policies={"raw.yaml": policy}) as running:
            yield running, provider


@pytest.mark.parametrize(
    "line",
    [
        b"x-a: b\x00c",
        b"x-a: b\x1bc",
        b"x a: b",
        b"x-a : b",
        b" folded",
        b"x-a: b\rx-evil: 1",
        b"x-\xc3\xa9: 1",
        b"no colon",
    ],
    ids=["NUL", "escape", "space in name", "space before colon", "folded", "bare CR", "non-ASCII name", "no colon"],
)
def test_header_line_of_a_provider_that_is_none_does_not_cross(raw: tuple[Stage, RawProvider], line: bytes) -> None:
    """HT-07: what we write to a caller must be HTTP even when what we read was not."""
    running, provider = raw
    provider.answer(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-first: 1\r\n"
        + line
        + b"\r\ncontent-length: 2\r\n\r\n{}",
        closes=True,
    )
    with RawCaller(running.sidecar.data_port) as caller:
        caller.send(raw_chat("x", model=f"m-{line.hex()}"))
        answer = caller.read()  # the strict reader is the test

    assert not answer.all("x-evil")
    assert answer.status in (200, 502, 503)


@pytest.mark.parametrize(
    "reason", [b"", b"OK\x0bthen", b"caf\xc3\xa9", b"x" * 9000], ids=["none", "control", "bytes", "long"]
)
def test_reason_of_a_provider_makes_a_whole_status_line(raw: tuple[Stage, RawProvider], reason: bytes) -> None:
    """HT-07: the reason is copied into our own status line."""
    running, provider = raw
    provider.answer(
        b"HTTP/1.1 200 " + reason + b"\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", closes=True
    )
    answer = running.ask(raw_chat("x", model=f"r-{len(reason)}"))

    check_pairs(answer)
    assert answer.status in (200, 502, 503)
