"""The language of injected faults: what is written is what happens, and what cannot be read says how to write it."""

from __future__ import annotations

import pytest

from proxy.core.policy.faults import FaultKind, InjectedFault, parse_fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("latency=2s", InjectedFault(FaultKind.LATENCY, 2.0)),
        ("latency=250ms;target=all", InjectedFault(FaultKind.LATENCY, 0.25, "all")),
        ("status=503", InjectedFault(FaultKind.STATUS, 503.0)),
        (" status = 429 ; target = groq ", InjectedFault(FaultKind.STATUS, 429.0, "groq")),
        ("refuse", InjectedFault(FaultKind.REFUSE)),
        ("cut", InjectedFault(FaultKind.CUT)),
        ("cut=200", InjectedFault(FaultKind.CUT, 200.0)),
        ("stall=0", InjectedFault(FaultKind.STALL, 0.0)),
    ],
)
def test_fault_is_read(text: str, fault: InjectedFault) -> None:
    """As the README writes them."""
    assert fault == parse_fault(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "boom", "latency", "latency=2", "latency=-1s", "latency=2h", "status=200", "status=600", "status=abc"),
        *("refuse=1", "cut=-1", "cut=x", "stall=99999999999", "status=503;target", "status=503;share=1", "a=b=c"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_syntax(text: str) -> None:
    """A rehearsal that silently does nothing rehearses nothing."""
    with pytest.raises(ValueError, match="latency=2s, status=503"):
        parse_fault(text)


def test_fault_hits_whom_it_names() -> None:
    """The first link, one provider wherever it stands, or everyone."""
    assert [True, False] == [InjectedFault(FaultKind.CUT).hits("any", index) for index in (0, 1)]
    assert [True, False] == [InjectedFault(FaultKind.CUT, 0, "groq").hits(name, 1) for name in ("groq", "openai")]
    assert InjectedFault(FaultKind.CUT, 0, "all").hits("any", 7)
