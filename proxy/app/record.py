"""The parts of the audit: spool, store, keys, kept words and their deliveries, joined as settings ask.

Owns none of their states, only that they fit: one key signs checkpoints and wraps the keys of kept words, one URL names
the store that rows, words and pruning mean.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from proxy.core.audit.pruning import Ages
from proxy.core.audit.records import CHECKPOINT, Record
from proxy.core.config.settings import SecretRef, Settings
from proxy.flow.audit_calls import QUERY_S, AuditCalls
from proxy.flow.catalog import Catalog
from proxy.flow.checkpoints import Checkpoints
from proxy.flow.clock import SystemClock
from proxy.flow.content import ContentDelivery
from proxy.flow.delivery import Delivery, DeliveryPace
from proxy.flow.outbox import Outbox
from proxy.flow.people import people_routes
from proxy.flow.ports import Witness
from proxy.flow.retention import Pruner, ages_of, keep_pruning
from proxy.sources.secrets import Secrets
from proxy.stores.audit_keys import content_keys
from proxy.stores.audit_reader import readers
from proxy.stores.audit_stores import dead_letters, make_signer, make_sink, open_spool
from proxy.stores.content_spool import FOLDER, ContentFolder
from proxy.stores.content_store import open_contents
from proxy.stores.people import open_people
from proxy.stores.retention import open_pruner
from proxy.stores.stdout_sink import plain_record
from proxy.terms.admin import AdminRoute

LAST_WORDS_S = 2.0


class AuditRecord:
    """Everything that keeps and ships rows in one process."""

    def __init__(self, settings: Settings, secrets: Secrets, clock: SystemClock, witness: Witness) -> None:
        """Open the spool; the store itself is met when the first rows are sent."""
        audit = settings.audit
        self._clock = clock
        self._witness = witness
        self.spool = open_spool(audit)
        self.outbox = Outbox(self.spool, audit.when_full, clock.unix_ms)
        key = secrets.current(audit.key) if audit.key is not None else None
        secret = None if key is None else key.reveal()
        self._wrapping = None if secret is None else content_keys(secret)
        self.contents = ContentFolder(audit.spool / FOLDER, self._wrapping, audit.content_max_bytes)
        """Where kept words wait. Without ``audit.key`` it keeps none, and says so."""
        self._url = _store_url(audit.store, secrets)
        self.open_reader = readers(self._url, QUERY_S)
        """Opens the store for a question; None where it cannot be read back."""
        self._sink = make_sink(self._url, may_migrate=audit.may_migrate)
        signer = make_signer(audit, secret)
        self._pruner: Pruner | None = None
        with suppress(ValueError):  # standard output keeps no rows
            self._pruner = open_pruner(self._url, signer)
        witness.notice("audit_key", key=signer.key, public=getattr(signer, "public", b"").hex())
        pace = DeliveryPace(max_rows=audit.sink_batch_rows, max_age_s=audit.sink_batch_wait_s)
        checkpoints = Checkpoints(signer, clock, self._tell_checkpoint)
        self.words = self._word_delivery()
        self.rows = Delivery(self.spool, self._sink, dead_letters(audit), clock, random.random, pace, checkpoints)

    def routes(self) -> list[AdminRoute]:
        """Return the calls of the admin API over the store; none about people where rows go to standard output."""
        found = list(AuditCalls(self.open_reader, self._clock).routes())
        with suppress(ValueError):
            people, contents = open_people(self._url), open_contents(self._url, self._wrapping)
            found += people_routes(people, self._clock.unix_ms, contents)
        return found

    async def prune(self, catalog: Catalog) -> None:
        """Take out rows that are too old by the policies in force, for ever."""

        def ages() -> Ages:
            snapshot = catalog.snapshot
            return ages_of(() if snapshot is None else snapshot.policies.policies)

        if self._pruner is None:
            await asyncio.Event().wait()
        else:
            await keep_pruning(self._pruner, ages, self._clock.unix_ms, self._witness, random.random)

    async def last_words(self) -> None:
        """Send kept words that wait; what is left after a while waits for the next start."""
        if self.words is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self.words.flush()

    async def close(self) -> None:
        """Let go of store and spool; rows that are not in the store stay in the spool."""
        self.outbox.close_gap()
        await self._sink.close()
        self.spool.close()

    def _word_delivery(self) -> ContentDelivery | None:
        try:
            store = open_contents(self._url, self._wrapping)
        except ValueError:  # standard output: `check` refuses a policy that wants words kept
            return None
        return ContentDelivery(self.contents, store, self._clock, self._witness)

    def _tell_checkpoint(self, record: Record) -> None:
        """Say outside the store how far a chain stood: who can write there cannot take this back."""
        if record.kind == CHECKPOINT:
            self._witness.notice("audit_checkpoint", record=plain_record(record))


def _store_url(store: str | SecretRef, secrets: Secrets) -> str:
    if isinstance(store, SecretRef):
        secret = secrets.current(store)
        return secret.reveal() if secret is not None else ""
    return store
