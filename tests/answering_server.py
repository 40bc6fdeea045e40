"""An OpenAI-compatible server that has its answers ready, as a program of its own, on loopback.

What it does is read from a file before each answer, so that a test can change its mind: `well`,
`slow` (an answer after three seconds), `dies` (in the middle of it), `garbage` (a page for people),
`rambles` (text without form), `broken` (500), `hangs` (never an answer).

    python answering_server.py MOOD_FILE LOG_FILE        prints its port on one line
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MOOD, LOG = Path(sys.argv[1]), Path(sys.argv[2])
RATED = '<think>\nThe whole picture is black.\n</think>\n<answer>\n{"rating": 1.25}\n</answer>'
NAMED = (
    "<think>\nNothing can be seen.\n</think>\n"
    '<answer>\n{"distortion_class": "darken", "severity": "catastrophic"}\n</answer>'
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.give(200, {"object": "list", "data": [{"id": "ready", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = json.dumps(body["messages"])
        mood = MOOD.read_text().strip()
        with open(LOG, "a") as log:
            log.write(f"{mood} {'named' if 'distortion_class' in asked else 'rated'}\n")
        if mood in ("slow", "hangs"):
            time.sleep(3 if mood == "slow" else 600)
        if mood == "broken":
            self.give(500, {"error": {"message": "CUDA out of memory"}})
        elif mood == "dies":
            self.send_response(200)
            self.send_header("content-length", "100000")
            self.end_headers()
            self.wfile.write(b'{"choices": ')
            self.close_connection = True
        elif mood == "garbage":
            self.give(200, b"<html><body>Welcome!</body></html>")
        elif mood == "rambles":
            self.complete("I like this picture.")
        else:
            self.complete(NAMED if "distortion_class" in asked else RATED)

    def complete(self, text: str) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        self.give(200, {"object": "chat.completion", "model": "ready", "choices": [choice]})

    def give(self, status: int, body: object) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        with suppress(OSError):  # who asked has not waited
            self.wfile.write(payload)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
