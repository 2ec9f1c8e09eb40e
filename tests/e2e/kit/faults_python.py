#!/usr/bin/env python3
"""Ask BASE_URL for each case of the JSON list on stdin with openai (Python); print what the app sees, one object a line."""

import json
import sys

import openai


def ask(client, case):
    request = {"model": case["model"], "messages": [{"role": "user", "content": case["content"]}]}
    text = ""
    try:
        if case["stream"]:
            for event in client.chat.completions.create(**request, stream=True):
                for choice in event.choices:
                    text += choice.delta.content or ""
        else:
            text = client.chat.completions.create(**request).choices[0].message.content
    except openai.APIStatusError as exc:
        return {"text": text, "raised": "status", "status": exc.status_code, "code": exc.code or exc.type}
    except openai.APIError as exc:
        return {"text": text, "raised": "error", "status": 0, "code": exc.code or exc.type or type(exc).__name__}
    except Exception as exc:  # what a client does not wrap, an app has to catch all the same
        return {"text": text, "raised": "other", "status": 0, "code": type(exc).__name__}
    return {"text": text, "raised": "", "status": 200, "code": ""}


def main():
    client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0, timeout=30)
    for case in json.load(sys.stdin):
        print(json.dumps({"id": case["id"], **ask(client, case)}), flush=True)


main()
