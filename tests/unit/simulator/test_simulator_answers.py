"""Endpoints and plans: any question gets an answer, and every fault a plan."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.answers import Kind
from proxy.simulator.catalogue import find_place
from proxy.simulator.faults import CATALOGUE, FaultBoard
from proxy.simulator.journal import Entry, Journal
from proxy.simulator.planning import Planned, Question, plan_answer
from proxy.simulator.settings import Settings, Speech
from proxy.simulator.world import World

PATHS = ("chat/completions", "completions", "responses", "embeddings", "moderations", "images/generations",
         "audio/speech", "audio/transcriptions", "messages", "messages/count_tokens", "files", "batches", "models")  # fmt: skip
KEYS = ("messages", "input", "prompt", "tools", "tool_choice", "n", "stream", "stream_options", "response_format",
        "model", "max_tokens", "dimensions", "encoding_format", "metadata", "text")  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False) | st.text(max_size=12)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(("user", "assistant", "tool", "system"))},
    optional={"content": SCALARS | st.lists(st.dictionaries(st.sampled_from(("type", "text")), SCALARS))},
)
ANYTHING = st.recursive(
    SCALARS | MESSAGE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from((*KEYS, "function", "name", "type", "schema", "properties")), inner, max_size=4
        )
    ),
    max_leaves=8,
)


def planned(path: str, data: object, fault: str = "", method: str = "POST") -> Planned:
    world = World(Settings(), Speech(), Journal(), FaultBoard())
    entry = Entry(1, 1, 0.0, method=method, target=f"/v1/{path}", http_version="1.1")
    headers = {"x-sim-fault": fault} if fault else {}
    return plan_answer(world, Question(entry, headers, orjson.dumps(data), 0.0))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PATHS), st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6))
def test_any_question_gets_an_answer(path: str, data: dict[str, object]) -> None:
    """A simulator that fails on odd input would hide what the gateway did with it."""
    answer = planned(path, data).plan.answer

    assert 200 <= answer.status < 500
    assert answer.body or answer.events


@pytest.mark.parametrize("name", sorted(CATALOGUE))
@pytest.mark.parametrize("stream", [False, True])
def test_every_fault_has_a_plan_for_plain_and_streamed_answers(name: str, stream: bool) -> None:
    """No fault fails by itself."""
    data = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    size = ":size=1MiB" if "size" in CATALOGUE[name][1] and name == "bomb" else ""

    assert name == planned("chat/completions", data, name + size).fault.name


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "messages"])
def test_stream_has_prelude_content_and_end_in_order(path: str) -> None:
    """Faults say where they strike in these words, for every dialect."""
    data = {
        "messages": [{"role": "user", "content": "x"}],
        "input": "x",
        "prompt": "x",
        "max_tokens": 5,
        "stream": True,
    }
    events = planned(path, data).plan.answer.events or []
    kinds = [event.kind for event in events]

    assert 20 == kinds.count(Kind.CONTENT)
    assert kinds == sorted(kinds, key=lambda kind: (kind is not Kind.PRELUDE, kind is not Kind.CONTENT))
    assert 1 == kinds.count(Kind.FINISH)


@pytest.mark.parametrize(
    ("path", "provider", "rest", "deployment"),
    [
        ("/v1/chat/completions", "", "/chat/completions", ""),
        ("/groq/openai/v1/models", "groq", "/models", ""),
        ("/openrouter/api/v1/models", "openrouter", "/models", ""),
        ("/v1beta/openai/embeddings", "", "/embeddings", ""),
        ("/openai/deployments/my%20gpt/chat/completions", "", "/chat/completions", "my gpt"),
        ("/azure/openai/deployments/d/completions", "azure", "/completions", "d"),
    ],
)
def test_path_leads_to_its_provider(path: str, provider: str, rest: str, deployment: str) -> None:
    """Each sample provider's base URL has its own shape."""
    place = find_place(path)

    assert place is not None
    assert (provider, rest, deployment) == (place.provider, place.path, place.deployment)


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models", "/__sim__/journal", "/v1x/models", ""])
def test_path_outside_the_api_leads_nowhere_or_to_no_endpoint(path: str) -> None:
    """Nothing but the API answers as the API."""
    place = find_place(path)

    assert place is None or place.path == "/"
