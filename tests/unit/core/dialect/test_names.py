"""Which shape is spoken on which path."""

import pytest

from proxy.core.dialect import Dialect, dialect_of


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.CHAT),
        ("/v1/chat/completions/chatcmpl-1", Dialect.CHAT),
        ("/openai/deployments/x/chat/completions", Dialect.CHAT),
        ("/v1/completions", Dialect.COMPLETIONS),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/responses/resp_1", Dialect.RESPONSES),
        ("/v1/embeddings", Dialect.EMBEDDINGS),
        ("/v1/messages", Dialect.MESSAGES),
        ("/v1/messages/count_tokens", Dialect.MESSAGES),
        ("/v1/threads/t/messages", Dialect.OTHER),
        ("/v1/moderations", Dialect.OTHER),
        ("/", Dialect.OTHER),
        ("", Dialect.OTHER),
    ],
)
def test_path_names_its_dialect(path: str, dialect: Dialect) -> None:
    """Lanes and usage are looked for where the dialect says."""
    assert dialect is dialect_of(path)
