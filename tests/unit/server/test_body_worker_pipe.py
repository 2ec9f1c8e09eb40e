"""What comes over the pipe of the process for large bodies when it is killed in the middle of a word."""

from __future__ import annotations

import io

from proxy.server.body_worker import _hear, _packed, _tell


def test_message_cut_anywhere_is_the_end_of_the_pipe() -> None:
    """Half a message is nothing to guess from, and no fault of another kind."""
    pipe = io.BytesIO()
    _tell(pipe, b"told", _packed([("EMAIL", "ana@example.com", "[EMAIL-1]")]), b"body")
    whole = pipe.getvalue()

    heard = _hear(io.BytesIO(whole))
    assert heard == (b"told", [("EMAIL", "ana@example.com", "[EMAIL-1]")], b"body")
    for cut in range(len(whole)):
        assert _hear(io.BytesIO(whole[:cut])) is None, cut
