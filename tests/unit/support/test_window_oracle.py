"""The oracle itself is right: it is the only witness of the budget tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.window_oracle import Cost, Window, main, most_at_once, worst_window


@given(costs=st.lists(st.builds(Cost, st.integers(0, 200).map(float), st.integers(0, 9)), max_size=60))
def test_worst_window_is_that_of_brute_force(costs: list[Cost]) -> None:
    """Every window begins best at a request."""
    brute = max((sum(b.amount for b in costs if a.at_s <= b.at_s < a.at_s + 60) for a in costs), default=0)

    assert brute == worst_window(costs, 60.0).amount


def test_window_is_half_open() -> None:
    """Sixty seconds after a request its window is over."""
    assert Window(1, 0.0) == worst_window([Cost(0.0, 1), Cost(60.0, 1)], 60.0)
    assert 2 == worst_window([Cost(0.0, 1), Cost(59.9, 1)], 60.0).amount


def test_overlap_counts_what_runs_together() -> None:
    """An exchange that ends as another begins shares no moment with it."""
    assert 2 == most_at_once([(0, 5), (1, 3), (3, 4), (5, 6)])


@pytest.mark.parametrize(("limit", "code"), [(250, 0), (249, 1)])
def test_command_tells_by_its_exit_code(tmp_path: Path, limit: int, code: int) -> None:
    """A journal file can be judged after the fact."""
    entry = {"method": "POST", "provider": "", "tokens_in": 50, "tokens_out": 75}
    journal = tmp_path / "journal.jsonl"
    journal.write_text("".join(json.dumps({**entry, "started_s": at}) + "\n" for at in (1.0, 60.9, 61.0)))

    assert code == main([str(journal), "--limit", str(limit), "--unit", "tokens"])


def test_command_refuses_what_is_no_journal(tmp_path: Path) -> None:
    """An unreadable file is not a clean one."""
    (tmp_path / "x").write_text("{}\n")

    assert 2 == main([str(tmp_path / "x"), "--limit", "1"])
