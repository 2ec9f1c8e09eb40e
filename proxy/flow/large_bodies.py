"""Reading and redacting one large body: the same steps here and in the process for large bodies.

Owns what is asked of that process and what it answers. Knows no pipes: ``server.body_worker`` carries the jobs over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from proxy.core.budget.estimate import measure
from proxy.core.dialect import OTHER, Dialect
from proxy.core.dialect.modalities import modalities_of
from proxy.core.redaction import AnswerRedactor, Redacted, RequestRedactor, Unreadable, Untouched, Vault, Verdict
from proxy.core.redaction.form import redact_form
from proxy.core.redaction.jsonio import loads
from proxy.core.routing.problems import Problem
from proxy.flow.fitting import ask_usage, cap_output
from proxy.flow.forms import Form, Shaped, in_form_from
from proxy.flow.intake import Large, Request, parsed, read_json, with_model
from proxy.flow.large_answers import AnswerJob, ReadAnswer, read_answer
from proxy.flow.redactors import Redactors
from proxy.flow.texts import hidden_bytes, is_wide_json, unwrap, wrap
from proxy.terms.errors import ProxyError, RedactionFault
from proxy.terms.redaction import RedactionPlan


class LargeBodies(Protocol):
    """Reads bodies that are too large to be read beside other exchanges."""

    async def read(self, body: bytes, dialect: Dialect) -> Request | Problem:
        """Return what a JSON body asks for; the parsed document stays where it was parsed.

        Raises:
            RedactionFault: It could not be read.
        """
        ...

    async def redact(self, body: bytes, dialect: Dialect, content_type: bytes, plan: RedactionPlan) -> Verdict:
        """Decide what may leave in place of a body; ``document`` of the verdict is None.

        Raises:
            RedactionFault: It could not be judged; nothing may leave.
        """
        ...

    async def rename(self, body: bytes, model: str) -> bytes:
        """Return a request body asking for another model, every other byte as it was where that can be told.

        Raises:
            RedactionFault: It could not be done.
        """
        ...

    async def shape(self, body: bytes, form: Form) -> tuple[Shaped, bytes]:
        """Return a request body in a target's form, and what became of it.

        Raises:
            RedactionFault: It could not be done.
        """
        ...

    async def fit(self, body: bytes, job: FitJob) -> tuple[tuple[int | None, bool], bytes]:
        """Return the longest answer, whether usage is asked for on our account, and the request body that says so.

        Raises:
            RedactionFault: It could not be done.
        """
        ...

    async def answer(self, body: bytes, job: AnswerJob, vault: Vault | None) -> tuple[ReadAnswer, bytes]:
        """Return what the caller gets of a whole answer; the job's hash key is filled in on the way.

        Raises:
            RedactionFault: It could not be judged, or restored.
        """
        ...


def redact_body(
    redactor: RequestRedactor,
    plan: RedactionPlan,
    body: bytes,
    dialect: Dialect,
    content_type: bytes,
    document: Any = None,
) -> Verdict:
    """Decide what may leave in place of a body of any kind; what cannot be read counts as unscanned.

    Raises:
        RedactionFault: A detector or the walk failed; nothing may leave.
    """
    if dialect is not OTHER:
        return redactor.redact(body, dialect, document)
    try:
        return _redact_other(redactor, plan, body, content_type, document)
    except ProxyError:
        raise
    except Exception as exc:
        if redactor.is_observing:
            return Untouched(unscanned_bytes=len(body))
        raise RedactionFault(f"taking a body apart failed: {type(exc).__name__}") from exc


def _redact_other(
    redactor: RequestRedactor, plan: RedactionPlan, body: bytes, content_type: bytes, document: Any
) -> Verdict:
    """The same for a body that is asked of no model."""
    dialect, kind = OTHER, content_type.lower()
    if is_wide_json(body):
        if redactor.is_observing:
            return Untouched(unscanned_bytes=len(body))
        return Unreadable("JSON in another encoding than UTF-8")
    if b"json" in kind:
        return redactor.redact(body, dialect, document)
    if kind.startswith(b"multipart/form-data"):
        return redact_form(redactor, body, content_type, plan.files)
    wrapped = wrap(body, content_type)
    if wrapped is None or body.lstrip()[:1] in (b"{", b"[", b'"'):  # servers look at a body and not at its label
        try:
            loads(body)
        except ValueError:
            if wrapped is None:
                return Untouched(unscanned_bytes=len(body))
        else:
            return redactor.redact(body, dialect)
    assert wrapped is not None
    verdict = redactor.redact(wrapped, dialect)
    if isinstance(verdict, Redacted):
        verdict = replace(verdict, body=unwrap(verdict.document), document=None)
    hidden = hidden_bytes(body)
    if hidden and isinstance(verdict, (Redacted, Untouched)):
        verdict = replace(verdict, unscanned_bytes=verdict.unscanned_bytes + hidden)
    return verdict


@dataclass(slots=True)
class Renamings:
    """A large request body in the form of the target at hand, if only its name for the model; made apart, before the
    attempt.
    """

    large: LargeBodies
    _model: str = ""
    _body: bytes = b""
    _form: Form | None = None
    _shaped: Shaped = field(default_factory=Shaped)

    async def prepare(self, body: bytes, model: str) -> None:
        """Have it ready for a target.

        Raises:
            RedactionFault: It could not be done.
        """
        if model != self._model:
            self._body, self._model, self._form = b"", "", None  # two would be kept for nothing
            self._body = await self.large.rename(body, model)
            self._model = model

    def body_for(self, model: str) -> bytes:
        """Return what was prepared."""
        assert model == self._model
        return self._body

    async def prepare_form(self, body: bytes, form: Form) -> None:
        """Have it ready in a form.

        Raises:
            RedactionFault: It could not be done.
        """
        if form != self._form:
            self._body, self._model, self._form = b"", "", None
            self._shaped, self._body = await self.large.shape(body, form)
            self._form = form

    def form_for(self, form: Form) -> tuple[Shaped, bytes]:
        """Return what was prepared."""
        assert form == self._form
        return self._shaped, self._body


@dataclass(frozen=True, slots=True)
class ReadJob:
    """Ask for what a JSON body asks for."""

    dialect: Dialect


@dataclass(frozen=True, slots=True)
class RedactJob:
    """Ask for a verdict."""

    dialect: Dialect
    content_type: bytes
    plan: RedactionPlan
    hash_key: bytes


@dataclass(frozen=True, slots=True)
class RenameJob:
    """Ask for a request body under another model name."""

    model: str


@dataclass(frozen=True, slots=True)
class FitJob:
    """Ask for a request body with its answer capped, and the report of usage asked for."""

    dialect: Dialect
    output_cap: int | None
    asks_usage: bool
    max_tokens: int | None
    """What the caller allows the answer."""


@dataclass(frozen=True, slots=True)
class Done:
    """The body beside it is what was asked for; of a fitted one, its longest answer and whose question usage is."""

    fitted: tuple[int | None, bool] = (None, False)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, by the name of its exception: never a message, which may quote the body."""

    error: str


Job = ReadJob | RedactJob | AnswerJob | RenameJob | FitJob | Form
Result = Request | Problem | Verdict | ReadAnswer | Done | Shaped | Failure
Row = tuple[str, str, str]
"""Of a vault: type, value, placeholder."""


class Reader:
    """The far end: carries out jobs, one after the other; remembers the last document until it was redacted."""

    def __init__(self) -> None:
        self._redactors: dict[bytes, Redactors] = {}
        self._compiled: dict[RedactJobKey, RequestRedactor | None] = {}
        self._compiled_answers: dict[RedactJobKey, AnswerRedactor | None] = {}
        self._last: tuple[bytes, Any] = (b"", None)

    def carry_out(self, job: Job, body: bytes, rows: list[Row] | None = None) -> tuple[Result, bytes, list[Row]]:
        """Return the result without its body and vault, then these two; ``rows`` are those of a vault to restore from."""
        try:
            if isinstance(job, ReadJob):
                return self._read(job, body), b"", []
            if isinstance(job, FitJob):
                return *fitted(job, body), []
            if isinstance(job, Form):
                return *in_form_from(job, body), []
            if isinstance(job, RenameJob):
                return Done(), with_model(body, None, job.model), []
            if isinstance(job, AnswerJob):
                return *self._answer(job, body, rows or []), []
            return self._redact(job, body)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the near end refuses the request
            return Failure(type(exc).__name__), b"", []

    def _read(self, job: ReadJob, body: bytes) -> Request | Problem:
        request = read_json(body, job.dialect)
        if not isinstance(request, Request):
            return request
        self._last = (body, request.document)
        return replace(request, body=b"", document=None, large=_large(body, request.document))

    def _answer(self, job: AnswerJob, body: bytes, rows: list[Row]) -> tuple[ReadAnswer, bytes]:
        self._last = (b"", None)
        vault = None
        if rows:
            vault = Vault()
            vault.take(rows)
        return read_answer(job, self._answer_redactor(job), vault, body)

    def _answer_redactor(self, job: AnswerJob) -> AnswerRedactor | None:
        if job.plan is None:
            return None
        key = RedactJobKey(repr(job.plan), job.hash_key)
        if key not in self._compiled_answers:
            if len(self._compiled_answers) >= _MAX_PLANS:
                self._compiled_answers.clear()
            redactors = self._redactors.setdefault(job.hash_key, Redactors(job.hash_key))
            self._compiled_answers[key] = redactors.build_answers(job.plan)
        return self._compiled_answers[key]

    def _redact(self, job: RedactJob, body: bytes) -> tuple[Result, bytes, list[Row]]:
        known, document = self._last
        self._last = (b"", None)
        redactor = self._redactor(job)
        if redactor is None:
            return Untouched(), b"", []
        verdict = redact_body(
            redactor, job.plan, body, job.dialect, job.content_type, document if known == body else None
        )
        if isinstance(verdict, Redacted):
            out, rows = verdict.body, verdict.vault.rows()
            return replace(verdict, body=b"", document=None, vault=_NO_VAULT), out, rows
        return (replace(verdict, document=None) if isinstance(verdict, Untouched) else verdict), b"", []

    def _redactor(self, job: RedactJob) -> RequestRedactor | None:
        key = RedactJobKey(repr(job.plan), job.hash_key)
        if key not in self._compiled:
            if len(self._compiled) >= _MAX_PLANS:
                self._compiled.clear()
            redactors = self._redactors.setdefault(job.hash_key, Redactors(job.hash_key))
            self._compiled[key] = redactors.build(job.plan)
        return self._compiled[key]


def _large(body: bytes, document: Any) -> Large:
    options = document.get("stream_options") if isinstance(document, dict) else None
    asks_usage = isinstance(options, dict) and options.get("include_usage") is True
    return Large(measure(body), modalities=modalities_of(document), asks_usage=asks_usage)


def fitted(job: FitJob, body: bytes) -> tuple[Done, bytes]:
    """Return a body with its answer capped and its usage asked for, where that was not so already."""
    request = Request(body, parsed(body), max_tokens=job.max_tokens)
    hides_usage = False
    if isinstance(request.document, dict):
        if job.output_cap is not None:
            cap_output(job.dialect, request, job.output_cap)
        hides_usage = job.asks_usage and ask_usage(request)
    return Done((request.max_tokens, hides_usage)), request.body


class InPlace:
    """Large bodies read where they are: for rehearsals, where nobody waits beside them."""

    def __init__(self) -> None:
        self._reader = Reader()

    async def read(self, body: bytes, dialect: Dialect) -> Request | Problem:
        """Return what a JSON body asks for."""
        result = await self._ask(ReadJob(dialect), body)
        assert isinstance(result, (Request, Problem))
        return result

    async def redact(self, body: bytes, dialect: Dialect, content_type: bytes, plan: RedactionPlan) -> Verdict:
        """Decide what may leave in place of a body."""
        result = await self._ask(RedactJob(dialect, content_type, plan, b"rehearsal"), body)
        assert not isinstance(result, (Request, Problem, ReadAnswer, Done, Shaped, Failure))
        return result

    async def rename(self, body: bytes, model: str) -> bytes:
        """Return a request body asking for another model."""
        return with_model(body, None, model)

    async def shape(self, body: bytes, form: Form) -> tuple[Shaped, bytes]:
        """Return a request body in a target's form."""
        return in_form_from(form, body)

    async def fit(self, body: bytes, job: FitJob) -> tuple[tuple[int | None, bool], bytes]:
        """Return a request body as budgets need it."""
        done, out = fitted(job, body)
        return done.fitted, out

    async def answer(self, body: bytes, job: AnswerJob, vault: Vault | None) -> tuple[ReadAnswer, bytes]:
        """Return what the caller gets of a whole answer."""
        rows = [] if vault is None else vault.rows()
        result, out, _ = self._reader.carry_out(replace(job, hash_key=b"rehearsal"), body, rows)
        if isinstance(result, Failure):
            raise RedactionFault(f"a large body could not be read: {result.error}")
        assert isinstance(result, ReadAnswer)
        return result, out

    async def _ask(self, job: Job, body: bytes) -> Result:
        result, out, rows = self._reader.carry_out(job, body)
        if isinstance(result, Failure):
            raise RedactionFault(f"a large body could not be read: {result.error}")
        return await joined(result, body, out, rows)


@dataclass(frozen=True, slots=True)
class RedactJobKey:
    """What one compiled redactor was made of."""

    plan: str
    hash_key: bytes


_MAX_PLANS = 32
ROWS_AT_ONCE = 1000
_NO_VAULT: Any = None


async def joined(result: Result, body: bytes, out: bytes, rows: list[Row]) -> Result:
    """Return a result with the body and the vault that travelled beside it; others get their turn in between."""
    if isinstance(result, Redacted):
        vault = Vault()
        for at in range(0, len(rows), ROWS_AT_ONCE):
            vault.take(rows[at : at + ROWS_AT_ONCE])
            await asyncio.sleep(0)
        return replace(result, body=out, vault=vault)
    if isinstance(result, Request):
        return replace(result, body=body)
    return result
