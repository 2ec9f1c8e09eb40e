"""Secrets: where they come from, how they change, and that they never show."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.config.problem import Severity
from proxy.core.config.settings import SecretRef, Settings
from proxy.sources.secrets import Secrets, SecretText, references, secret_problems, usable_providers

KEY = "sk-canary-0123456789"


def revealed(secrets: Secrets, ref: SecretRef) -> str | None:
    found = secrets.current(ref)
    return None if found is None else found.reveal()


def settings_of(body: str) -> Settings:
    settings = parse_settings("version: 1\nproviders:\n" + body, "config.yaml", Path("/etc/readygate")).settings
    assert settings is not None
    return settings


def test_environment_and_file_give_the_value(tmp_path: Path) -> None:
    """The line break at the end of a mounted secret is not part of it."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    from_env, from_file = SecretRef(env="K"), SecretRef(file=tmp_path / "key")
    secrets = Secrets({"K": KEY})
    secrets.load([from_env, from_file])

    assert [KEY, KEY] == [revealed(secrets, from_env), revealed(secrets, from_file)]


def test_changed_file_gives_the_new_value_and_keeps_the_old_for_the_overlap(tmp_path: Path) -> None:
    """A rotation must not refuse callers that still hold the old token."""
    path = tmp_path / "key"
    path.write_text("old")
    ref = SecretRef(file=path)
    secrets = Secrets({}, overlap_s=60.0)
    secrets.load([ref], now_s=0.0)
    path.write_text("new")

    assert (ref,) == secrets.poll(now_s=100.0)
    assert () == secrets.poll(now_s=101.0)
    assert ["new", "old"] == [value.reveal() for value in secrets.accepted(ref, now_s=159.0)]
    assert ["new"] == [value.reveal() for value in secrets.accepted(ref, now_s=160.0)]


def test_configmap_style_swap_is_seen(tmp_path: Path) -> None:
    """Kubernetes swaps a symbolic link; the file's own path stays the same."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(version)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "key").symlink_to("..data/key")
    ref = SecretRef(file=tmp_path / "key")
    secrets = Secrets({})
    secrets.load([ref])
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "..data")

    assert (ref,) == secrets.poll(now_s=1.0)
    assert "two" == revealed(secrets, ref)


def test_refresh_after_a_401_reads_once_more(tmp_path: Path) -> None:
    """The answer says whether trying again makes sense."""
    path = tmp_path / "key"
    path.write_text("old")
    ref = SecretRef(file=path)
    secrets = Secrets({})
    secrets.load([ref])

    assert not secrets.refresh(ref, now_s=1.0)
    path.write_text("new")
    assert secrets.refresh(ref, now_s=2.0)
    assert "new" == revealed(secrets, ref)


@pytest.mark.parametrize("damage", ["gone", "empty", "two lines", "binary"])
def test_damaged_file_leaves_the_old_value_in_force(tmp_path: Path, damage: str) -> None:
    """A rotation that goes wrong must not take the provider down."""
    path = tmp_path / "key"
    path.write_text("old")
    ref = SecretRef(file=path)
    secrets = Secrets({})
    secrets.load([ref])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b" \n", "two lines": b"a\nb", "binary": b"\xff\xfe"}[damage])

    assert () == secrets.poll(now_s=1.0)
    assert "old" == revealed(secrets, ref)
    assert str(path) in secrets.trouble(ref)


def test_pipe_in_the_place_of_a_file_does_not_stop_the_start(tmp_path: Path) -> None:
    """Opening a FIFO without a writer would wait for ever."""
    path = tmp_path / "key"
    os.mkfifo(path)
    ref = SecretRef(file=path)
    secrets = Secrets({})
    secrets.load([ref])

    assert secrets.current(ref) is None
    assert "not a regular file" in secrets.trouble(ref)


def test_value_never_shows() -> None:
    """Logs, tracebacks and formatted text hold stars only."""
    secret = SecretText(KEY)

    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, repr({"k": [secret]})):  # noqa: UP031
        assert KEY not in shown
    with pytest.raises(TypeError) as caught:
        pickle.dumps(secret)
    assert KEY not in str(caught.value)


def test_value_that_would_break_a_header_is_refused_without_being_repeated() -> None:
    """A pasted line break is the classic; the complaint must not leak the key."""
    ref = SecretRef(env="K")
    secrets = Secrets({"K": f"{KEY}\r\nX-Evil: 1"})
    secrets.load([ref])

    assert secrets.current(ref) is None
    assert KEY not in secrets.trouble(ref)


def test_comparison_accepts_the_right_text_only() -> None:
    """Used for admin tokens."""
    assert SecretText(KEY).matches(KEY)
    assert not SecretText(KEY).matches(KEY[:-1])
    assert not SecretText(KEY).matches("é\ud800")
    assert SecretText(KEY) == SecretText(KEY)


TWO = """\
  openai: {base_url: "http://h/v1", api_key: {env: OPENAI_API_KEY}}
  groq: {base_url: "http://h/v1", api_key: {file: groq.key}}
"""


def test_unset_key_is_a_lint_while_another_provider_works() -> None:
    """The sample config lists seven providers; one key is enough to start."""
    settings = settings_of(TWO)
    secrets = Secrets({"OPENAI_API_KEY": KEY})
    secrets.load(references(settings))
    problems = secret_problems(settings, secrets)

    assert [(4, 51, "unset-secret", Severity.LINT)] == [(p.line, p.column, p.code, p.severity) for p in problems]
    assert "provider groq cannot be used: file /etc/readygate/groq.key cannot be read" in problems[0].message
    assert frozenset({"openai"}) == usable_providers(settings, secrets)


def test_no_usable_provider_is_an_error() -> None:
    """Nothing could be answered."""
    settings = settings_of(TWO)
    secrets = Secrets({})
    secrets.load(references(settings))

    found = {(p.code, p.severity) for p in secret_problems(settings, secrets)}
    assert ("no-usable-provider", Severity.ERROR) in found


def test_provider_without_key_is_usable() -> None:
    """A local server takes none."""
    settings = settings_of('  local: {base_url: "http://127.0.0.1:11434/v1"}\n')
    secrets = Secrets({})

    assert frozenset({"local"}) == usable_providers(settings, secrets)
    assert [] == secret_problems(settings, secrets)


def test_missing_admin_token_is_an_error() -> None:
    """A door that was meant to be locked must not stand open."""
    settings = settings_of('  l: {base_url: "http://127.0.0.1:1/v1"}\nadmin_token: {env: TOKEN}\n')
    secrets = Secrets({})
    secrets.load(references(settings))

    assert [("unset-secret", Severity.ERROR)] == [(p.code, p.severity) for p in secret_problems(settings, secrets)]
