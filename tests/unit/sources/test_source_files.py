"""Config and policy files: read with advice, watched by content."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.config.problem import Severity
from proxy.sources.files import FolderSnapshot, read_config, read_policies, watch_policies

CONFIG = 'version: 1\nproviders: {local: {base_url: "http://127.0.0.1:1/v1"}}\n'
INTERVAL_S = 0.02


def texts(snapshot: FolderSnapshot) -> list[str]:
    return [text for _, text in snapshot.files]


async def next_change(changes: AsyncIterator[FolderSnapshot]) -> FolderSnapshot:
    async with asyncio.timeout(5):
        return await anext(changes)


def test_config_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    """Starting from another directory must not move the audit store."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = read_config(tmp_path / "config.yaml")

    assert result.settings is not None
    assert tmp_path / "policies" == result.settings.policies


def test_missing_config_names_the_likely_one(tmp_path: Path) -> None:
    """A typo in -c is the first thing that goes wrong."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    problem = read_config(tmp_path / "confg.yaml").problems[0]

    assert ("missing-file", f"did you mean {tmp_path}/config.yaml?") == (problem.code, problem.suggestion)


def test_missing_ca_file_is_told_at_its_provider(tmp_path: Path) -> None:
    """It would otherwise show as a TLS error of the first request."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("/v1", '/v1", ca_file: "ca.pem'))
    result = read_config(tmp_path / "config.yaml")

    assert result.settings is None
    assert [(2, 13, "missing-file")] == [(p.line, p.column, p.code) for p in result.problems]


@pytest.mark.parametrize(
    ("data", "line", "column", "code"),
    [
        (b"version: 1\nlog: {level: \xe9}\n", 2, 14, "not-utf8"),
        (b"#" * (1024 * 1024 + 1), 1, 1, "file-too-large"),
    ],
    ids=["latin-1", "large"],
)
def test_unreadable_content_is_told_with_its_place(
    tmp_path: Path, data: bytes, line: int, column: int, code: str
) -> None:
    """Editors save in strange encodings; large files are not swallowed whole."""
    (tmp_path / "config.yaml").write_bytes(data)

    assert [(line, column, code)] == [
        (p.line, p.column, p.code) for p in read_config(tmp_path / "config.yaml").problems
    ]


def test_policies_are_read_by_name_and_cases_are_left_out(tmp_path: Path) -> None:
    """Cases beside a policy are not policies."""
    for name in ("b.yaml", "a.yaml", "a.cases.yaml", ".hidden.yaml", "README.md", "b.yaml~"):
        (tmp_path / name).write_text(name)
    snapshot = read_policies(tmp_path)

    assert ["a.yaml", "b.yaml"] == texts(snapshot)
    assert () == snapshot.problems


def test_file_that_looks_like_a_policy_and_is_not_read_is_told(tmp_path: Path) -> None:
    """Nothing is ignored silently."""
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / "b.yml").write_text("b")

    assert [("not-read", Severity.LINT)] == [(p.code, p.severity) for p in read_policies(tmp_path).problems]


@pytest.mark.parametrize(
    ("make", "code"), [("none", "missing-folder"), ("file", "missing-folder"), ("empty", "no-policy")]
)
def test_missing_policies_get_advice(tmp_path: Path, make: str, code: str) -> None:
    """Without a policy nothing passes, so the message has to say what to do."""
    folder = tmp_path / "policies"
    if make == "file":
        folder.write_text("x")
    elif make == "empty":
        folder.mkdir()
    problem = read_policies(folder).problems[0]

    assert code == problem.code
    assert problem.is_error
    assert problem.suggestion


def test_pipe_in_the_folder_does_not_hang_the_reader(tmp_path: Path) -> None:
    """Opening a FIFO without a writer would wait for ever."""
    os.mkfifo(tmp_path / "a.yaml")

    assert ["unreadable-file"] == [p.code for p in read_policies(tmp_path).problems]


async def test_edit_is_seen_once(tmp_path: Path) -> None:
    """One edit, one reload; the digest of what is known is not reported again."""
    (tmp_path / "a.yaml").write_text("one")
    changes = watch_policies(tmp_path, INTERVAL_S, seen=read_policies(tmp_path).digest)
    os.utime(tmp_path / "a.yaml", (1, 1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5 * INTERVAL_S):
            await anext(changes)
    changes = watch_policies(tmp_path, INTERVAL_S, seen=read_policies(tmp_path).digest)
    (tmp_path / "a.yaml").write_text("two")

    assert ["two"] == texts(await next_change(changes))


async def test_atomic_rename_and_configmap_swap_are_seen(tmp_path: Path) -> None:
    """The two ways in which files are replaced whole."""
    for version in ("one", "two"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    changes = watch_policies(tmp_path, INTERVAL_S)

    assert ["one"] == texts(await next_change(changes))
    (tmp_path / "..next").symlink_to("..two")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert ["two"] == texts(await next_change(changes))
    (tmp_path / ".new").write_text("three")
    (tmp_path / ".new").rename(tmp_path / "a.yaml")
    assert ["three"] == texts(await next_change(changes))


async def test_vanished_folder_is_told_and_its_return_is_seen(tmp_path: Path) -> None:
    """A remount must not end the watching."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    changes = watch_policies(folder, INTERVAL_S, seen=read_policies(folder).digest)
    folder.rename(tmp_path / "away")

    assert ["missing-folder"] == [p.code for p in (await next_change(changes)).problems]
    (tmp_path / "away").rename(folder)
    assert ["one"] == texts(await next_change(changes))


async def test_file_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    """Half a policy may parse and mean less protection than the whole."""
    path = tmp_path / "a.yaml"
    path.write_text("start")
    changes = watch_policies(tmp_path, INTERVAL_S, seen=read_policies(tmp_path).digest)

    async def write_slowly() -> None:
        for number in range(20):
            path.write_text(f"part {number}")
            await asyncio.sleep(INTERVAL_S / 4)
        path.write_text("whole")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write_slowly(), name="slow-writer")
        first = await next_change(changes)
        while texts(first) != ["whole"]:
            first = await next_change(changes)

    assert ["whole"] == texts(first)
