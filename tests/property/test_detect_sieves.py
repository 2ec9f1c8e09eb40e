"""What a quick look lets the detector pass over is nothing the full look would have reported."""

from __future__ import annotations

import re
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.core.redaction.detect import announced, build_detector

DETECTOR = build_detector()
NEVER = re.compile(rb"(?!)")

LEADS = ("", "max_", "my ", "(", '"', "x-", "Your new ", "wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn is my ")
NAMES = (
    "credentials",
    "id/pw",
    "token",
    "tokens",
    "password",
    "Authorization",
    "API_KEY",
    "secret key",
    "senha",
    "Bearer",
    "passcode",
)
SIGNS = (":", "=", '": ', " = ", "': ", '\\": ', ": ", " :", "s: ")
VALUES = st.one_of(
    st.integers(0, 1_234_567).map(str), st.from_regex(r"[0-9]{1,6}[A-Za-z!,;.}\])]{0,6}[0-9]{0,3}", fullmatch=True)
)
ENDS = ("", " ", ",", "}", "\n", '"', ", ", "},", ". ", ",next=wEz9bf8pdW0WGpEQiew8V6BLWuQuoesn", " wEz9bf8pdW0WGpEQ", ";", ",geheim9x!", " / geheim9x!")  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(*map(st.sampled_from, (LEADS, NAMES, SIGNS)), VALUES, st.sampled_from(ENDS)), min_size=1, max_size=3
    ),
    st.booleans(),
)
@example([("", "Authorization", ": ", "12345", " wEz9bf8pdW0WGpEQ")], False)
def test_small_number_behind_the_name_of_a_secret_is_passed_over_without_loss(
    fields: list[tuple[str, str, str, str, str]], is_local: bool
) -> None:
    """Counts of tokens are many in requests; a password of five digits and a letter must not pass for one."""
    text = "".join(part for field in fields for part in field)
    quick = DETECTOR.find(text, local=is_local)

    with patch.object(announced, "_SMALL_NUMBER", NEVER):
        assert DETECTOR.find(text, local=is_local) == quick
