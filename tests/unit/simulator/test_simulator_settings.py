"""Units, speech settings, and the small language of faults."""

from pathlib import Path

import pytest

from proxy.simulator.faults import CATALOGUE, FaultBoard, parse_fault, parse_step
from proxy.simulator.settings import SPEECH_KEYS, BadSetting, Speech, parse_duration, parse_size, speech_with


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("2m", 120.0), ("3", 3.0), ("0", 0.0)])
def test_duration_carries_its_unit(text: str, seconds: float) -> None:
    """Times are written with units everywhere."""
    assert seconds == pytest.approx(parse_duration(text))


@pytest.mark.parametrize("text", ["", "soon", "-1s", "5 years", "1e3"])
def test_duration_without_sense_is_refused(text: str) -> None:
    """A typo must not become zero."""
    with pytest.raises(BadSetting):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("64KiB", 65536), ("1kB", 1000), ("300MiB", 300 << 20), ("7", 7)])
def test_size_carries_its_unit(text: str, size: int) -> None:
    """Binary and decimal units differ."""
    assert size == parse_size(text)


def test_speech_changes_by_name_and_suggests() -> None:
    """Every field can be set from text; a wrong one names the nearest."""
    assert Speech(tokens=60, rate=50.0, bom=True) == speech_with(Speech(), {"tokens": "60", "rate": "50", "bom": "yes"})
    with pytest.raises(BadSetting, match="did you mean 'tokens'"):
        speech_with(Speech(), {"token": "1"})
    with pytest.raises(BadSetting, match="rate: expected a number"):
        speech_with(Speech(), {"rate": "fast"})


def test_fault_text_holds_name_arguments_and_speech() -> None:
    """One text says what goes wrong and how the rest is spoken."""
    fault = parse_fault("stall:after=5,tokens=60,rate=50")

    assert ("stall", "5") == (fault.name, fault.text("after"))
    assert {"tokens": "60", "rate": "50"} == fault.speech


def test_bare_number_is_a_status() -> None:
    """``429`` reads better than ``status:status=429``."""
    fault = parse_fault("429:retry_after=2")

    assert ("status", 429, "2") == (fault.name, fault.count("status", 0), fault.text("retry_after"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stal", "did you mean 'stall'"),
        ("stall:aftr=1", "did you mean 'after'"),
        ("cut:after", "unknown argument 'after'"),
    ],
)
def test_wrong_fault_gets_a_suggestion(text: str, complaint: str) -> None:
    """Fault texts are typed by hand."""
    with pytest.raises(BadSetting, match=complaint):
        parse_fault(text)


def test_every_fault_can_be_written_with_its_arguments() -> None:
    """The catalogue is what the parser accepts."""
    for name, (what, arguments) in CATALOGUE.items():
        text = f"{name}:" + ",".join(f"{key}=1" for key in arguments)
        assert what
        assert name == parse_fault(text).name


def test_script_steps_are_taken_in_order_and_only_by_whom_they_are_for() -> None:
    """A step for embeddings waits while chats pass it."""
    board = FaultBoard()
    board.add(parse_step({"fault": "500", "path": "/embeddings"}), parse_step({"fault": "503", "times": 2}))

    taken = [board.take_step(path, "m") for path in ("/chat/completions", "/embeddings", "/x", "/x")]

    assert ["503", "500", "503", None] == [step and step.fault.source for step in taken]


def test_header_beats_marker_beats_model_beats_global() -> None:
    """The nearest wish wins."""
    board = FaultBoard(parse_fault("500"))
    board.by_model["m"] = parse_fault("502")
    body = b'{"content":"[[sim 503]] x"}'

    assert "504" == board.choose("504", body, "m", "").source
    assert "503" == board.choose(None, body, "m", "").source
    assert "429" == board.choose(None, b"", "sim/429", "").source
    assert "502" == board.choose(None, b"", "m", "").source
    assert "500" == board.choose(None, b"", "other", "").source


def test_unknown_script_field_is_refused() -> None:
    """Nothing is ignored silently."""
    with pytest.raises(BadSetting, match="did you mean 'times'"):
        parse_step({"fault": "500", "time": 2})


def test_readme_lists_every_fault_and_setting() -> None:
    """What is not written down is not found."""
    readme = (Path(__file__).resolve().parents[3] / "proxy/simulator/README.md").read_text()

    assert [] == [name for name in (*CATALOGUE, *SPEECH_KEYS) if f"`{name}`" not in readme]
    assert [] == [name for name in CATALOGUE if f"| `{name}` |" not in readme]
