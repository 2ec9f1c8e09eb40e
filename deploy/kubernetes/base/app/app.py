"""An app with no line about Readygate: it asks the model behind OPENAI_BASE_URL and shows the answer.

GET /healthz answers at once; GET /?ask=… puts a question. Standard library only.
"""

import json
import os
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BASE_URL = os.environ["OPENAI_BASE_URL"].rstrip("/")
API_KEY = os.environ.get("OPENAI_API_KEY", "")
MODEL = os.environ.get("MODEL", "gpt-4o-mini")


def ask(question: str) -> str:
    """Return the model's answer; raises OSError when there is none."""
    call = urllib.request.Request(
        f"{BASE_URL}/chat/completions",
        data=json.dumps({"model": MODEL, "messages": [{"role": "user", "content": question}]}).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {API_KEY}"},
    )
    with urllib.request.urlopen(call, timeout=120) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


class Handler(BaseHTTPRequestHandler):
    """Two paths, answers in plain text."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/healthz":
            self._say(200, "ok")
            return
        question = urllib.parse.parse_qs(url.query).get("ask", ["Say hello."])[0]
        try:
            self._say(200, ask(question))
        except urllib.error.HTTPError as refusal:
            self._say(refusal.code, refusal.read().decode(errors="replace"))
        except OSError as away:
            self._say(502, f"no answer from {BASE_URL}: {away}")

    def _say(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the sidecar has the record."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
