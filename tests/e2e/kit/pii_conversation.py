"""A tool-calling conversation with personal data everywhere, by openai-python; what the application sees is printed.

Run: pii_conversation.py BASE_URL; ends with 0 when the application saw its own values and nothing else in their place.
"""

import json
import sys

import openai

EMAIL, CPF, CARD, PHONE = "ana.canary@example.com", "529.982.247-25", "4111 1111 1111 1111", "+55 11 98765-4321"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": f"Finds a customer; ask {EMAIL} when in doubt.",
            "parameters": {"type": "object", "properties": {"mail": {"type": "string"}, "cpf": {"type": "string"}}},
        },
    }
]


def said(client, messages, is_stream, **more):
    """Return the text and the tool calls of one turn as (id, name, arguments)."""
    if not is_stream:
        message = client.chat.completions.create(model="gpt-4o-mini", messages=messages, **more).choices[0].message
        return message.content or "", [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []]
    text, calls, ended = "", {}, None
    for event in client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True, **more):
        for choice in event.choices:
            assert ended is None, "an event after the finish reason"
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                entry = calls.setdefault(call.index, ["", "", ""])
                entry[0] = call.id or entry[0]
                entry[1] += call.function.name or ""
                entry[2] += call.function.arguments or ""
            ended = choice.finish_reason
    assert ended, "no finish reason"
    return text, [tuple(entry) for entry in calls.values()]


def converse(client, is_stream):
    """Three turns; every value is checked where the application meets it."""
    messages = [
        {"role": "system", "content": f"You help {EMAIL}. Her phone is {PHONE}."},
        {"role": "user", "content": f"call look_up {json.dumps({'mail': EMAIL, 'cpf': CPF})}"},
    ]
    _, calls = said(client, messages, is_stream, tools=TOOLS)
    call_id, name, arguments = calls[0]
    assert name == "look_up", name
    assert json.loads(arguments) == {"mail": EMAIL, "cpf": CPF}, arguments

    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    result = json.dumps({"customer": {"mail": EMAIL, "card": CARD, "note": 'says "hi" to bob.canary@example.com'}})
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
        {"role": "user", "content": [{"type": "text", "text": f"echo: {EMAIL} pays with {CARD}"}]},
    ]
    text, _ = said(client, messages, is_stream)
    assert text == f"{EMAIL} pays with {CARD}", text

    messages += [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f'echo: {{"to": "{EMAIL}", "tel": "{PHONE}", "cpf": "{CPF}"}}'},
    ]
    text, _ = said(client, messages, is_stream)
    assert json.loads(text) == {"to": EMAIL, "tel": PHONE, "cpf": CPF}, text


def converse_in_responses(client, is_stream):
    """The same over the Responses API."""
    asked = {"model": "gpt-4o-mini", "instructions": f"You help {EMAIL}.", "input": f"echo: {EMAIL}, {CPF}"}
    if not is_stream:
        assert client.responses.create(**asked).output_text == f"{EMAIL}, {CPF}"
        return
    text = done = completed = ""
    for event in client.responses.create(**asked, stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.output_text.done":
            done = event.text
        elif event.type == "response.completed":
            completed = event.response.output_text
    assert text == done == completed == f"{EMAIL}, {CPF}", (text, done, completed)


def main():
    """Converse in every way."""
    headers = {"x-sim-speech": "chars=3"}
    with openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0, default_headers=headers) as client:
        for is_stream in (False, True):
            converse(client, is_stream)
            converse_in_responses(client, is_stream)
    print("ok")


if __name__ == "__main__":
    main()
