"""The load scenario: 30 apps that chat, stream, send personal data and are probed, about one request a second each.

Runs inside locust's own process (gevent patches the standard library here and nowhere else). ``loadtest.run`` starts it,
the sidecar and the simulated provider; by hand: ``locust -f loadtest/locustfile.py --host http://127.0.0.1:8080``.
Environment: ``READYGATE_ADMIN`` (base URL of the admin port), ``READYGATE_TALLY`` (file the tally is written to).
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from locust import FastHttpUser, between, events, task
from locust.env import Environment

from loadtest.persons import person
from loadtest.thresholds import Tally, server_timings

MODEL = "gpt-4o-mini"
ADMIN = os.environ.get("READYGATE_ADMIN", "http://127.0.0.1:8081")
TALLY = Tally()
Answer: TypeAlias = Any
"""Locust's response; its checks (`failure`, `headers`, the socket below) carry no types."""

_QUESTIONS = (
    "Which of the two editions suits a reader of twelve?",
    "Write a friendly note about our opening hours in December.",
    "Sum up in two sentences why linen covers cost more.",
    "Translate into Portuguese: the parcel is waiting at the counter.",
)


class App(FastHttpUser):
    """One app. The numbers of the tasks are their shares."""

    wait_time = between(0.6, 1.2)  # a fixed beat would keep users in step, as they were started: ten at a time

    @task(6)
    def chat(self) -> None:
        """A plain answer: status, text and usage are there."""
        with self._ask("chat", random.choice(_QUESTIONS)) as response:
            if self._is_good(response) and not response.json()["choices"][0]["message"]["content"]:
                response.failure("no text")

    @task(4)
    def stream(self) -> None:
        """A streamed answer: the first token is timed, the events are counted, the end is ``[DONE]``."""
        began = time.perf_counter()
        with self._ask("stream", random.choice(_QUESTIONS), stream=True) as response:
            if self._is_good(response):
                texts = self._read_stream(response, began)
                if texts is not None and not "".join(texts):
                    response.failure("no text")

    @task(3)
    def personal_data(self) -> None:
        """The provider echoes the prompt; the app must see its own values, though the provider never does."""
        someone = person(random.randrange(10_000_000))
        with self._ask("personal data", f"echo: Write to {someone.email} about CPF {someone.cpf}.") as response:
            if self._is_good(response):
                self._check_values(
                    response, response.json()["choices"][0]["message"]["content"], someone.email, someone.cpf
                )

    @task(2)
    def personal_data_streamed(self) -> None:
        """The same in a stream, where placeholders are cut into pieces."""
        someone = person(random.randrange(10_000_000))
        prompt = f"echo: Card {someone.card} belongs to {someone.email}, so write there."
        began = time.perf_counter()
        with self._ask("personal data streamed", prompt, stream=True) as response:
            if self._is_good(response):
                texts = self._read_stream(response, began)
                if texts is not None:
                    self._check_values(response, "".join(texts), someone.email, someone.card)

    @task(1)
    def probe(self) -> None:
        """What a kubelet asks."""
        for path in ("/livez", "/readyz", "/health"):
            with self.client.get(f"{ADMIN}{path}", name=path, catch_response=True) as response:
                if response.status_code == 200:
                    TALLY.probes += 1
                else:
                    response.failure(f"status {response.status_code}")

    def _ask(self, name: str, prompt: str, *, stream: bool = False) -> Answer:
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 200}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"authorization": "Bearer sk-loadtest-not-a-real-key", "x-readygate-app": "loadtest"}
        return self.client.post(
            "/v1/chat/completions", json=body, headers=headers, name=name, stream=stream, catch_response=True
        )

    def _is_good(self, response: Answer) -> bool:
        if response.status_code != 200:
            response.failure(f"status {response.status_code}")
            return False
        timings = server_timings(response.headers.get("server-timing", ""))
        if "gateway" not in timings:
            response.failure("no server-timing of the gateway")
            return False
        TALLY.overhead_ms.append(timings["gateway"])
        return True

    def _read_stream(self, response: Answer, began: float) -> list[str] | None:
        """The pieces of text of a stream, or None after marking it as failed."""
        texts: list[str] = []
        # The public iter_content() waits for a full block; only the socket below hands events over as they come.
        while event := response._response.readline(b"\n\n"):
            data = event.strip().removeprefix(b"data: ")
            if data == b"[DONE]":
                response._response.read()
                return texts
            TALLY.stream_events += 1
            for choice in json.loads(data).get("choices", ()):
                if piece := choice.get("delta", {}).get("content"):
                    if not texts:
                        self._first_token((time.perf_counter() - began) * 1000)
                    texts.append(piece)
        response.failure("stream without [DONE]")
        return None

    def _first_token(self, taken_ms: float) -> None:
        TALLY.first_token_ms.append(taken_ms)
        self.environment.events.request.fire(
            request_type="TTFT",
            name="first token",
            response_time=taken_ms,
            response_length=0,
            exception=None,
            context={},
        )

    @staticmethod
    def _check_values(response: Answer, text: str, *values: str) -> None:
        missing = sum(value not in text for value in values)
        if missing:
            response.failure(f"{missing} of {len(values)} values did not come back")
        else:
            TALLY.round_trips += 1


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # locust's hooks are untyped
def write_tally(environment: Environment, **_: object) -> None:
    """Leave what was seen to the driver, exactly: locust itself rounds its percentiles."""
    for (_name, method), entry in environment.stats.entries.items():
        if method in ("GET", "POST"):
            TALLY.requests += entry.num_requests
            TALLY.failures += entry.num_failures
    for error in environment.stats.errors.values():
        TALLY.failure_reasons[f"{error.name}: {error.error}"] = error.occurrences
    if path := os.environ.get("READYGATE_TALLY"):
        Path(path).write_text(json.dumps(asdict(TALLY)))
