"""The audit's hands, built from what ``config.yaml`` says.

Owns the reading of a store URL: ``sqlite:///path``, ``postgresql://…``, ``stdout:``. Called by ``app`` and
the ``audit`` verbs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.core.config.settings import AuditSettings, Durability
from proxy.flow.audit_ports import Sink
from proxy.flow.checkpoints import Signer
from proxy.stores.audit_keys import AuditKeys, HmacKeys, read_or_make_key
from proxy.stores.dead_letters import DeadLetterFile
from proxy.stores.group_commit import GroupCommit
from proxy.stores.postgres_sink import PostgresSink
from proxy.stores.spool import DiskSpool
from proxy.stores.sqlite_sink import SqliteSink
from proxy.stores.stdout_sink import StdoutSink

POSTGRES_SCHEMES: Final = frozenset({"postgresql", "postgres"})


def open_spool(audit: AuditSettings) -> DiskSpool:
    """Open the spool of this sidecar.

    Raises:
        SpoolLocked, SpoolUnavailable: see ``DiskSpool``.
    """
    syncs = GroupCommit() if audit.durability is Durability.FSYNC else None
    return DiskSpool(audit.spool, max_bytes=audit.spool_max_bytes, syncs=syncs)


def dead_letters(audit: AuditSettings) -> DeadLetterFile:
    """Return where refused rows are kept: beside the spool's segments."""
    return DeadLetterFile(audit.spool / "dead-letters.jsonl")


def make_signer(audit: AuditSettings, key: str | None) -> Signer:
    """Return what signs the checkpoints: ``key``, the text of ``audit.key``, or a key file made beside the spool.

    Raises:
        SpoolUnavailable: The key file can be neither read nor made.
    """
    return HmacKeys(read_or_make_key(audit.spool)) if key is None else AuditKeys(key.encode())


def make_sink(store_url: str, *, password: str | None = None, may_migrate: bool = True) -> Sink:
    """Return the sink a store URL names; it connects when it is opened.

    Raises:
        ValueError: A scheme that is none of ours.
    """
    scheme = urlsplit(store_url).scheme
    if scheme == "sqlite":
        return SqliteSink(sqlite_path(store_url), may_migrate=may_migrate)
    if scheme in POSTGRES_SCHEMES:
        return PostgresSink(store_url, password=password, may_migrate=may_migrate)
    if scheme == "stdout":
        return StdoutSink(sys.stdout.buffer)
    raise ValueError(f"audit.store: expected sqlite:///…, postgresql://… or stdout:, got scheme {scheme!r}")


def sqlite_path(store_url: str) -> Path:
    """Return the file a ``sqlite:///`` URL names: what follows the third slash."""
    return Path(store_url.removeprefix("sqlite:///"))
