"""What providers say of their limits, in their own forms, and the pace it gives."""

from __future__ import annotations

import pytest

from proxy.core.budget.announced import Announcement, Paces, Said, read_announcement, wait_in_body

NOW_UNIX_S = 1_763_683_200.0  # 2025-11-21T00:00:00Z


def lines(**fields: str) -> bytes:
    return b"".join(f"\r\n{name.replace('_', '-')}: {value}".encode() for name, value in fields.items())


OPENAI = lines(
    x_ratelimit_limit_requests="60",
    x_ratelimit_limit_tokens="150000",
    x_ratelimit_remaining_requests="0",
    x_ratelimit_remaining_tokens="149984",
    x_ratelimit_reset_requests="1m0s",
    x_ratelimit_reset_tokens="6ms",
)
GROQ = lines(
    x_ratelimit_limit_requests="14400",
    x_ratelimit_limit_tokens="18000",
    x_ratelimit_remaining_requests="14370",
    x_ratelimit_remaining_tokens="17997",
    x_ratelimit_reset_requests="2m59.56s",
    x_ratelimit_reset_tokens="7.66s",
)
AZURE = lines(x_ratelimit_remaining_requests="-1", x_ratelimit_remaining_tokens="120", x_ratelimit_reset_tokens="20")
ANTHROPIC = lines(
    anthropic_ratelimit_requests_limit="50",
    anthropic_ratelimit_requests_remaining="2",
    anthropic_ratelimit_requests_reset="2025-11-21T00:00:30Z",
    anthropic_ratelimit_tokens_limit="40000",
    anthropic_ratelimit_tokens_remaining="39000",
    anthropic_ratelimit_tokens_reset="2025-11-21T00:00:01Z",
)
BARE = lines(content_type="application/json", x_ratelimit="none")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (OPENAI, Announcement(Said(60, 0, 60.0), Said(150000, 149984, 0.006))),
        (GROQ, Announcement(Said(14400, 14370, 179.56), Said(18000, 17997, 7.66))),
        (AZURE, Announcement(Said(-1, 0, None), Said(-1, 120, 20.0))),
        (ANTHROPIC, Announcement(Said(50, 2, 30.0), Said(40000, 39000, 1.0))),
        (BARE, None),
    ],
    ids=["openai", "groq", "azure", "anthropic", "none"],
)
def test_forms_of_the_providers_are_read(head: bytes, expected: Announcement | None) -> None:
    """Each provider writes the same three things in its own way."""
    assert expected == read_announcement(head, NOW_UNIX_S)


@pytest.mark.parametrize(
    ("body", "wait_s"),
    [
        (b'{"error":{"message":"Rate limit reached ... Please try again in 7.66s. Visit ..."}}', 7.66),
        (b'{"error":{"message":"Please try again in 2m59.56s."}}', 179.56),
        (b'{"error":{"message":"Please try again in 120ms."}}', 0.12),
        (b'{"error":{"message":"Please retry after 26 seconds."}}', 26.0),
        (b'{"error":{"message":"Try again in 12m3s"}}', 723.0),
        (b'{"error":{"message":"You exceeded your current quota"}}', None),
        (b"", None),
    ],
)
def test_wait_in_the_text_of_a_429_is_read(body: bytes, wait_s: float | None) -> None:
    """OpenAI, Groq and Azure say it in words when they say it at all."""
    assert wait_in_body(body) == (None if wait_s is None else pytest.approx(wait_s))


def test_target_near_its_wall_is_paced_by_its_refill() -> None:
    """Sixty a minute with none left is one a second, not none for a minute."""
    paces = Paces()
    paces.hear("openai:m", OPENAI, 100.0, NOW_UNIX_S)

    assert (pytest.approx(1.0), False) == paces.wait_s("openai:m", 10, 100.0)
    assert (0.0, False) == paces.wait_s("openai:m", 10, 101.01)
    paces.take("openai:m", 10, 101.01)
    assert 0.9 < paces.wait_s("openai:m", 10, 101.02)[0] <= 1.0
    assert (0.0, False) == paces.wait_s("openai:m", 10, 160.0)
    assert (0.0, False) == paces.wait_s("openai:other", 10, 100.0)


def test_tokens_without_a_limit_to_refill_to_come_back_at_the_reset() -> None:
    """Azure names no limit: what is left may be used, the rest waits."""
    paces = Paces()
    paces.hear("azure:m", AZURE, 0.0, NOW_UNIX_S)

    assert (0.0, False) == paces.wait_s("azure:m", 100, 0.0)
    paces.take("azure:m", 100, 0.0)
    assert (pytest.approx(15.0), True) == paces.wait_s("azure:m", 100, 5.0)


def test_target_far_from_its_wall_costs_nothing() -> None:
    """What is said of plenty is not remembered; what is said twice is not read twice."""
    paces = Paces()
    paces.hear("groq:m", GROQ, 0.0, NOW_UNIX_S)
    paces.hear("groq:m", BARE, 0.0, NOW_UNIX_S)

    assert paces.is_idle


def test_longer_pause_stands() -> None:
    """Two answers of one burst: the later, shorter word does not open the door."""
    paces = Paces()
    paces.pause("x:m", 10.0, 0.0)
    paces.pause("x:m", 1.0, 0.0)

    assert (pytest.approx(6.0), False) == paces.wait_s("x:m", 1, 4.0)
    assert (0.0, False) == paces.wait_s("x:m", 1, 10.0)
    assert paces.is_idle
