"""Token counts and in-band errors, in the spellings of all providers."""

from typing import Any

import pytest

from proxy.core.dialect import error_in_body, read_usage
from proxy.terms.exchange import Usage


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        (
            {
                "usage": {
                    "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            Usage(10, 5, 4, 2),
        ),
        (
            {
                "usage": {
                    "input_tokens": 7, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 1},
                    "output_tokens_details": {"reasoning_tokens": 2},
                }
            },
            Usage(7, 3, 1, 2),
        ),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}, Usage(1, 2)),
        ({"object": "list", "data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0)),
        ({"usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 20}}, Usage(25, 1, 20)),
        ({"x_groq": {"usage": {"prompt_tokens": 2, "completion_tokens": 1}}}, Usage(2, 1)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "7", "prompt_tokens_details": None}}, Usage(0, 0)),
        ({"usage": {"prompt_tokens": 16, "completion_tokens": 8, "total_tokens": 24}}, Usage(16, 8)),
        ({"usage": {"prompt_tokens": 2**63, "completion_tokens": 2**63 - 1, "total_tokens": 1}}, Usage(0, 2**63 - 1)),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9, "cache_read_input_tokens": 4}}, Usage(9, 0, 4)),
        ({"usage": None}, None),
        ({"usage": {}}, None),
        ([], None),
    ],
)  # fmt: skip
def test_usage_is_read_in_every_spelling(document: Any, usage: Usage | None) -> None:
    """Budgets and bills are settled with these numbers."""
    assert usage == read_usage(document)


@pytest.mark.parametrize(
    ("document", "is_error"),
    [
        ({"error": {"message": "x"}}, True),
        ({"error": "x"}, True),
        ({"type": "error", "error": {}}, True),
        ({"error": None, "choices": []}, False),
        ({"choices": []}, False),
        ([], False),
    ],
)
def test_error_with_status_200_is_recognised(document: Any, is_error: bool) -> None:
    """Some providers answer 200 and put the failure inside."""
    assert is_error is error_in_body(document)
