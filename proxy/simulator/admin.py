"""The doors below ``/__sim__/``: how tests in other processes read the journal and set faults.

Owns their JSON. They are outside every provider path, so a sidecar pointed at the API never
reaches them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from proxy.simulator.answers import Answer, error_answer, json_answer
from proxy.simulator.faults import CATALOGUE, NO_FAULT, parse_fault, parse_step
from proxy.simulator.settings import BadSetting, speech_with
from proxy.simulator.world import World

ADMIN_PREFIX = "/__sim__/"


def answer_admin(world: World, method: str, target: str, body: bytes) -> Answer:
    """Answer one request below ``/__sim__/``."""
    parts = urlsplit(target)
    try:
        data = orjson.loads(body) if body else {}
        return _answer(world, method, parts.path[len(ADMIN_PREFIX) :], parts.query, data)
    except (BadSetting, orjson.JSONDecodeError) as problem:
        return error_answer(400, f"simulator: {problem}", code="bad_simulator_setting")


def _answer(world: World, method: str, door: str, query: str, data: Any) -> Answer:
    if method == "GET":
        return _look(world, door, query)
    if method not in ("POST", "PUT", "DELETE"):
        return error_answer(405, f"Not allowed to {method} here.")
    return _change(world, method, door, data)


def _look(world: World, door: str, query: str) -> Answer:
    if door == "journal":
        wanted = parse_qs(query)
        after, limit = _whole(wanted, "after", 0), _whole(wanted, "limit", 1000)
        entries = [entry.as_dict() for entry in world.journal if entry.number > after][:limit]
        connections = [record.as_dict() for record in world.journal.connections]
        return json_answer({"entries": entries, "connections": connections})
    if door == "stats":
        return json_answer(_stats(world))
    if door == "faults":
        board = world.board
        return json_answer({
            "global": board.everyone.source,
            "models": {model: fault.source for model, fault in board.by_model.items()},
            "providers": {name: fault.source for name, fault in board.by_provider.items()},
            "known": {name: {"does": what, "arguments": sorted(args)} for name, (what, args) in CATALOGUE.items()},
        })  # fmt: skip
    if door == "script":
        return json_answer({"steps": [step.fault.source for step in world.board.script]})
    if door in ("", "health"):
        return json_answer({"status": "ok", "doors": ["journal", "stats", "faults", "script", "speech", "reset",
                                                      "listener", "close-idle"]})  # fmt: skip
    return error_answer(404, f"No such door: {door}")


def _whole(query: dict[str, list[str]], key: str, default: int) -> int:
    text = query.get(key, [str(default)])[-1]
    if not text.isdigit():
        raise BadSetting(f"{key}: expected a whole number, got {text!r}")
    return int(text)


def _stats(world: World) -> dict[str, Any]:
    journal = world.journal
    entries = journal.entries
    return {
        "requests": journal.request_count, "connections": journal.connection_count,
        "open_connections": len(world.connections), "journalled": len(entries),
        "running": sum(not entry.is_ended for entry in entries),
        "complete": sum(entry.is_complete for entry in entries),
        "closed_by_peer": sum(entry.closed_by == "peer" for entry in entries),
        "bench_requests": world.bench_requests, "bench_events": world.bench_events,
    }  # fmt: skip


def _change(world: World, method: str, door: str, data: Any) -> Answer:
    if not isinstance(data, dict):
        raise BadSetting("expected a JSON object")
    if door == "reset":
        world.reset()
    elif door == "faults":
        _set_faults(world, {} if method == "DELETE" else data, is_reset=method == "DELETE")
    elif door == "script":
        if method == "DELETE":
            world.board.clear_script()
        world.board.add(*(parse_step(step) for step in data.get("steps", ())))
    elif door == "speech":
        world.speech = speech_with(world.speech, {str(key): str(value) for key, value in data.items()})
    elif door == "listener":
        world.close_listener(float(data.get("closed_for_s", 2.0)))
    elif door == "close-idle":
        return json_answer({"closed": close_idle(world, str(data.get("how", "fin")))})
    else:
        return error_answer(404, f"No such door: {door}")
    return json_answer({"status": "ok"})


def _set_faults(world: World, data: dict[str, Any], is_reset: bool) -> None:
    board = world.board
    if is_reset:
        board.everyone = NO_FAULT
        board.by_model.clear()
        board.by_provider.clear()
    if "global" in data:
        board.everyone = parse_fault(str(data["global"]))
    for key, table in (("models", board.by_model), ("providers", board.by_provider)):
        for name, text in (data.get(key) or {}).items():
            table[name] = parse_fault(str(text))


def close_idle(world: World, how: str) -> int:
    """Close every connection with no request under way; returns how many."""
    idle = [connection for connection in world.connections if connection.idle_since_s >= 0]
    for connection in idle:
        connection.close_now(how)
    return len(idle)
