"""From a request to the plan of its answer.

Owns the order of events: who asked, what goes wrong, what is said, how it leaves. Pure but for the
world it reads (script steps are used up).
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.simulator.answers import Answer, Asked, Headers, error_answer
from proxy.simulator.catalogue import (
    Place,
    answer_question,
    check_credential,
    find_place,
    no_such_path,
    read_body,
    read_prompt,
    read_query,
)  # fmt: skip
from proxy.simulator.chat import spoken_text, token_counts
from proxy.simulator.delivery import Delivery, Framing
from proxy.simulator.faults import NO_FAULT, Fault, Step
from proxy.simulator.journal import Entry
from proxy.simulator.misbehaviour import Scene, apply_fault
from proxy.simulator.settings import BadSetting, Speech, speech_with
from proxy.simulator.world import World


@dataclass(slots=True)
class Planned:
    """What will be done about a request."""

    plan: Delivery
    fault: Fault
    asked: Asked | None = None


@dataclass(slots=True)
class Question:
    """A whole request, before anybody looked into it."""

    entry: Entry
    headers: dict[str, str]
    """Lower-case names; the last of repeated ones."""
    body: bytes
    wall_s: float


def plan_answer(world: World, question: Question) -> Planned:
    """Decide the answer to a request and everything that goes wrong with it."""
    entry = question.entry
    place = find_place(entry.path)
    if place is None:
        answer = no_such_path(entry.method, entry.path)
        return _planned(world, question, Delivery(answer, world.speech), NO_FAULT, None)
    data, problem = read_body(place, entry.method, question.headers.get("content-type", ""), question.body)
    model = data.get("model")
    entry.model = model if isinstance(model, str) else place.deployment
    entry.provider = place.provider
    try:
        return _plan_found(world, question, place, data, problem)
    except BadSetting as mistake:
        answer = error_answer(400, f"simulator: {mistake}", code="bad_simulator_setting")
        return _planned(world, question, Delivery(answer, Speech()), NO_FAULT, None)


def _plan_found(world: World, question: Question, place: Place, data: dict[str, object], problem: str) -> Planned:
    entry, headers = question.entry, question.headers
    step = world.board.take_step(place.path, entry.model)
    fault = step.fault if step else world.board.choose(headers.get("x-sim-fault"), question.body, entry.model,
                                                       place.provider)  # fmt: skip
    entry.fault = fault.source
    speech = _speech_for(world.speech, headers.get("x-sim-speech"), fault)
    if fault.name in ("no_stream", "only_stream"):
        data = {**data, "stream": fault.name == "only_stream"}
    if place.deployment and "model" not in data:
        data = {**data, "model": place.deployment}
    asked = Asked(entry.number, entry.method, place.path, read_query(entry.target), headers, question.body, data,
                  speech, read_prompt(data), step.content if step else None, bool(place.deployment))  # fmt: skip
    refusal = check_credential(world.settings, headers, place.path.startswith("/messages"), entry.number)
    if refusal is None and step is not None and step.body is not None:
        answer = _scripted_answer(step)
    elif refusal is None and problem:
        answer = error_answer(400, problem)
    else:
        answer = refusal or answer_question(asked, world.settings, world.files)
    plan = Delivery(answer, speech, code_as=speech.encode, code_label=speech.encode)
    apply_fault(plan, fault, Scene(asked, question.wall_s))
    entry.tokens_in, entry.tokens_out = _billed(asked, plan.answer)
    return _planned(world, question, plan, fault, asked)


def _billed(asked: Asked, answer: Answer) -> tuple[int, int]:
    """Return what the provider bills, whether or not it says so in the answer."""
    if answer.status >= 400:
        return 0, 0
    if asked.billed == (0, 0) and asked.path in ("/chat/completions", "/completions"):
        return token_counts(asked, spoken_text(asked))
    return asked.billed


def _speech_for(speech: Speech, header: str | None, fault: Fault) -> Speech:
    changes = fault.speech
    if header:
        pairs = (part.partition("=") for part in header.split(",") if part.strip())
        changes = {**{key.strip(): value.strip() for key, _, value in pairs}, **changes}
    return speech_with(speech, changes) if changes else speech


def _scripted_answer(step: Step) -> Answer:
    kind = next((value for name, value in step.headers if name.lower() == "content-type"), "application/json")
    others = [(name, value) for name, value in step.headers if name.lower() != "content-type"]
    return Answer(step.status, others, step.body or b"", kind)


def _planned(world: World, question: Question, plan: Delivery, fault: Fault, asked: Asked | None) -> Planned:
    entry, answer = question.entry, plan.answer
    answer.headers = _usual_headers(world, question, plan, fault) + answer.headers
    if plan.code_label:
        answer.headers.append(("content-encoding", plan.code_label))
    if entry.method == "HEAD" and plan.raw is None:
        answer.headers.append(("content-length", str(len(answer.body))))
        answer.body, answer.events, plan.framing = b"", None, Framing.NONE
    elif answer.status in (204, 304):
        plan.framing = Framing.NONE
    elif entry.http_version == "1.0" and answer.events is not None:
        plan.framing = Framing.UNTIL_CLOSE
    return Planned(plan, fault, asked)


def _usual_headers(world: World, question: Question, plan: Delivery, fault: Fault) -> Headers:
    speech, status = plan.speech, plan.answer.status
    headers: Headers = [("server", "readygate-simulator")]
    if fault.name != "no_request_id":
        request_id = question.headers.get("x-request-id") or f"req_sim{question.entry.number:08d}"
        headers.append(("x-request-id", request_id))
    if plan.answer.events is not None:
        headers.append(("cache-control", "no-cache"))
    left = (0, 0) if status == 429 else (speech.remaining_requests, speech.remaining_tokens)
    headers += [
        ("openai-version", "2020-10-01"),
        ("openai-processing-ms", "1"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "150000"),
        ("x-ratelimit-remaining-requests", str(left[0])),
        ("x-ratelimit-remaining-tokens", str(left[1])),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "6m0s" if status == 429 else "6ms"),
    ]
    if speech.set_cookie:
        headers.append(("set-cookie", speech.set_cookie))
    headers += world.settings.extra_headers
    return headers
