"""Words that policy has kept: sealed everywhere, opened with the key alone, gone with the person and with time."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.cli import main
from proxy.core.audit.content import MAX_PART_BYTES, Content, Part
from proxy.core.audit.pruning import Ages
from proxy.flow.audit_ports import Sink
from proxy.flow.retention import prune_all
from proxy.stores.audit_keys import content_keys
from proxy.stores.audit_stores import make_sink
from proxy.stores.content_spool import ContentFolder
from proxy.stores.content_store import open_contents
from proxy.stores.people import open_people
from proxy.stores.retention import open_pruner
from tests.support.audit import TS_MS
from tests.support.audit_proof import KEYS, run_sql
from tests.support.raw_provider import raw_provider
from tests.support.wire import Sidecar, ask, chat, eventually, request, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

KEY = "0123456789abcdef0123456789abcdef"
SECRETS = {"ADMIN": "admin-token-9", "AUDIT_KEY": KEY}
MAIL, SECRET_WORD, LATER = "canary-ana@example.com", "canaryword-4711", 4_000_000_000_000
CONFIG = """
providers: {{main: {{base_url: "{origin}/v1"}}}}
admin_token: {{env: ADMIN}}
log: {{level: debug}}
"""
REDACTED = """
version: 1
policy: redacted
applies_to: {apps: ["*"]}
redaction: {request: {default: restore}}
audit: {content: redacted, content_retention: 2d}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""
FULL = (
    REDACTED.replace("policy: redacted", "policy: full")
    .replace('["*"]}\nred', '["open"]}\nred')
    .replace("content: redacted", "content: full")
)


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
def served(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sidecar]:
    """A sidecar that keeps words, before a simulated provider."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    audit = f'audit: {{store: "{store_url}", key: {{env: AUDIT_KEY}}, spool: spool, batch_wait: 10ms}}\n'
    with threaded_simulator() as provider:
        config = CONFIG.format(origin=provider.origin) + audit
        policies = {"redacted.yaml": REDACTED, "full.yaml": FULL}
        with sidecar_for(tmp_path, config, policies, env=SECRETS) as running:
            yield running


class Ran(NamedTuple):
    code: int
    stdout: str
    stderr: str


def asked(sidecar: Sidecar, text: str, *, user: str = "ana", app: str = "", **fields: Any) -> str:
    headers = {"x-readygate-user": user} | ({"x-readygate-app": app} if app else {})
    answer = sidecar.ask(chat(text, headers, **fields))
    assert 200 == answer.status, answer.body
    return answer.get("x-readygate-id") or ""


def audit(sidecar: Sidecar, *arguments: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["audit", arguments[0], "-c", str(sidecar.folder / "config.yaml"), *arguments[1:]])
    return Ran(code, out.getvalue(), err.getvalue())


def sql(store_url: str, statement: str) -> list[Any]:
    return asyncio.run(run_sql(store_url, statement))


def shown(sidecar: Sidecar, exchange_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_there() -> bool:
        done = audit(sidecar, "show", exchange_id, "--content")
        found.update(json.loads(done.stdout) if done.code == 0 else {})
        return "content" in found

    eventually(is_there, "the words to be stored")
    return found["content"]  # type: ignore[no-any-return]


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml")


def test_words_are_kept_sealed_and_shown_to_whoever_has_the_key(served: Sidecar, store_url: str) -> None:
    """The front door: what left (redacted), what came (full), streams too; plain text in no file, table or log."""
    text = f"echo: {SECRET_WORD} for {MAIL}"
    redacted, streamed = asked(served, text), asked(served, text, stream=True)
    full, plain = asked(served, text, app="open"), asked(served, text, app="open", stream=True)

    first, second = shown(served, redacted), shown(served, streamed)
    third, fourth = shown(served, full), shown(served, plain)
    for words in (first, second):
        assert MAIL not in json.dumps(words)
        assert SECRET_WORD in words["request"]["text"]
        assert "[EMAIL-1]" in words["request"]["text"]
        assert f"{SECRET_WORD} for [EMAIL-1]" in words["answer"]["text"]
    for words in (third, fourth):
        assert MAIL in words["request"]["text"]
        assert f"{SECRET_WORD} for {MAIL}" in words["answer"]["text"]
    assert ("redacted", "full") == (first["answer"]["mode"], third["answer"]["mode"])
    assert not any((served.folder / "spool" / "content").iterdir())
    dump = str(sql(store_url, "SELECT * FROM audit")) + str(sql(store_url, "SELECT * FROM audit_content"))
    for canary in (MAIL, SECRET_WORD):
        assert canary not in dump
        assert canary.encode() not in everything(served.folder)
        assert canary not in served.log()


def test_person_gets_their_words_and_erasing_destroys_key_and_words(served: Sidecar, store_url: str) -> None:
    """Export of one person holds the words; after erasing neither words nor their key are left, others' are."""
    ana, bob = asked(served, f"echo: {SECRET_WORD}", user="ana"), asked(served, "echo: of bob", user="bob")
    assert SECRET_WORD in shown(served, ana)["answer"]["text"]
    shown(served, bob)
    exported = audit(served, "export", "--user", "ana").stdout
    headers = {
        "Authorization": f"Bearer {SECRETS['ADMIN']}",
        "content-type": "application/json",
        "x-readygate-admin": "1",
    }
    called = ask(
        served.admin_port, request("POST", "/api/v1/audit/people/export", b'{"user": "ana"}', headers)
    ).body.decode()
    for lines in (exported, called):
        assert [SECRET_WORD in json.loads(line)["content"]["answer"]["text"] for line in lines.splitlines()] == [True]
    assert SECRET_WORD not in audit(served, "export").stdout  # only the export of one person has words

    keys = sql(store_url, "SELECT subject FROM audit_subject_keys")
    assert 0 == audit(served, "erase", "--user", "ana", "--yes").code
    left = sql(store_url, "SELECT subject FROM audit_subject_keys")
    assert (2, 1) == (len(keys), len(left))
    assert [(bob,)] * 2 == [(str(row[0]),) for row in sql(store_url, "SELECT id FROM audit_content")]
    assert "content" not in json.loads(audit(served, "show", ana, "--content").stdout)
    assert "of bob" in shown(served, bob)["answer"]["text"]
    actions = [action for (action,) in sql(store_url, "SELECT action FROM audit_actions")]
    assert {"content", "export", "erase"} == set(actions)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_long_words_are_cut_and_say_so(served: Sidecar) -> None:
    """64 KiB of each; the row is whole all the same."""
    words = shown(served, asked(served, "echo: " + "long " * 30_000))

    assert [True, True] == [words[part]["cut"] for part in ("request", "answer")]
    assert MAX_PART_BYTES == len(words["request"]["text"].encode())


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_another_key_opens_nothing(served: Sidecar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a change of audit.key new words open with the new key, old ones with the old key's file."""
    old = asked(served, f"echo: {SECRET_WORD}")
    shown(served, old)
    (tmp_path / "old.key").write_text(KEY)
    monkeypatch.setenv("AUDIT_KEY", "another key of 32 characters 1234")
    done = audit(served, "show", old, "--content")
    pieces = json.loads(done.stdout)["content"]

    assert [True, True] == [piece["sealed"] for piece in pieces.values()]
    assert "not with audit.key" in done.stderr
    assert SECRET_WORD in audit(served, "show", old, "--content", "--key-file", str(tmp_path / "old.key")).stdout


def content_of(n: int, user: str = "ana", expires: int = LATER) -> Content:
    parts = (Part("request", "full", False, f"words {n}"), Part("answer", "full", False, f"more {n}"))
    return Content(f"019a0000-0000-7000-8000-{n:012x}", TS_MS + n, user, expires, parts)


@pytest.fixture
async def sink(store_url: str) -> Any:
    sink: Sink = make_sink(store_url)
    await sink.open()
    yield sink
    await sink.close()


async def test_late_repeated_and_expired_words_change_nothing(store_url: str, sink: Sink) -> None:
    """A replay meets what is there; words of an erased person do not come back, nor do those past their time."""
    contents = open_contents(store_url, content_keys(KEY))
    await contents.insert([content_of(1), content_of(2, "bob")], TS_MS)
    before = await run_sql(store_url, "SELECT id, part, sealed FROM audit_content ORDER BY id, part")
    await contents.insert([content_of(1), content_of(2, "bob")], TS_MS)
    assert before == await run_sql(store_url, "SELECT id, part, sealed FROM audit_content ORDER BY id, part")
    await open_people(store_url).erase("ana", before_ms=TS_MS + 50, actor="a test")
    await contents.insert([content_of(1), content_of(3), content_of(60), content_of(4, "eve", TS_MS - 1)], TS_MS)
    found = await contents.read([content_of(n).id for n in range(70)])

    assert [2, 60] == sorted(int(name[-12:], 16) for name in found)
    assert "words 60" == found[content_of(60).id]["request"]["text"]


async def test_old_words_go_where_rows_stay_for_ever(store_url: str, sink: Sink) -> None:
    """Words have a retention of their own, with or without one of rows."""
    contents = open_contents(store_url, content_keys(KEY))
    await contents.insert([content_of(1, expires=TS_MS + 1000), content_of(2)], TS_MS)
    await prune_all(open_pruner(store_url, KEYS), Ages.of({"a": None}), lambda: TS_MS + 2000, "a test")

    assert [content_of(2).id] == list(await contents.read([content_of(1).id, content_of(2).id]))


def test_folder_gives_back_what_it_kept_and_holds_its_bound(tmp_path: Path) -> None:
    """After a kill the next start finds all of it; too much, a torn file and another key lose nothing else."""
    folder = ContentFolder(tmp_path / "content", content_keys(KEY), 1000)
    kept = [folder.keep(content_of(n)) for n in range(9)]
    (tmp_path / "content" / content_of(1).id).write_bytes(b"torn")
    again, other = (ContentFolder(tmp_path / "content", content_keys(key), 1000) for key in (KEY, "another"))
    found = again.read(10)

    assert (True, False) == (kept[0], kept[-1])
    assert sum(kept) - 1 == len(found)
    assert [content_of(0), content_of(2)] == found[:2]
    assert (1, sum(kept)) == (again.state().unreadable, (other.read(10), other.state().unreadable)[1])
    again.forget([content.id for content in found])
    assert (0, [content_of(1).id]) == (again.state().waiting, os.listdir(tmp_path / "content"))
    assert not ContentFolder(tmp_path / "none", None, 1000).keep(content_of(1))
    assert b"words" not in everything(tmp_path)


def test_strange_words_lose_no_row_and_come_into_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half characters from both sides, and a provider that repeats the question in the code of its error."""
    monkeypatch.setenv("AUDIT_KEY", KEY)
    document = {"model": "m", "stream": True, "messages": [{"role": "user", "content": MAIL}], "user": "ana\ud800"}
    ask_with_half = request("POST", "/v1/chat/completions", json.dumps(document).encode())
    halves = [rb'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % text for text in (rb"a\ud83d", rb"\ude00b")]
    events = b"".join(b"data: " + event + b"\n\n" for event in (*halves, b"[DONE]"))
    error = json.dumps(
        {"error": {"code": f"no answer to {MAIL}", "type": "[EMAIL-1] is bad", "message": MAIL}}
    ).encode()
    with raw_provider() as provider:
        config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
        config += "audit: {key: {env: AUDIT_KEY}, batch_wait: 10ms}\n"
        with sidecar_for(tmp_path, config, REDACTED, env=SECRETS) as served:
            head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
            provider.answer(head % (b"200 OK", b"text/event-stream", len(events)) + events)
            streamed = served.ask(ask_with_half)
            provider.answer(head % (b"400 Bad Request", b"application/json", len(error)) + error)
            refused = served.ask(ask_with_half)
            store_url = f"sqlite:///{served.folder}/var/audit.db"
            eventually(lambda: 2 == len(rows_in(store_url)), "both rows")
            words = shown(served, streamed.get("x-readygate-id") or "")
            rows = rows_in(store_url)
            code = audit(served, "erase", "--user", rows[0][0], "--yes").code

    assert (200, 400) == (streamed.status, refused.status)
    assert "a\U0001f600b" == words["answer"]["text"]
    assert [("ana\\ud800", "success", ""), ("ana\\ud800", "error", "")] == [(row[0], row[1], row[3]) for row in rows]
    assert MAIL not in str(rows)
    assert (0, [(0,)]) == (code, sql(store_url, "SELECT count(*) FROM audit_content"))


def rows_in(store_url: str) -> list[Any]:
    if not Path(store_url.removeprefix("sqlite:///")).exists():
        return []
    try:
        return sql(store_url, "SELECT user_id, status, error_code, error_message FROM audit ORDER BY ts, id")
    except sqlite3.OperationalError:
        return []
