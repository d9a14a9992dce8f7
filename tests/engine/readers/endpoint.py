"""A real server on this machine that speaks the chat protocol, with every fault that an endpoint can have."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-of-this-test"


def completion(content: Any, finish: str = "stop", refusal: str | None = None) -> dict[str, Any]:
    """A reply of the protocol; an object becomes JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "m", "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }  # fmt: skip


class Endpoint:
    """What the server does and has seen.

    `answer` maps (question's text, number of the try, request) to a status, headers and body: a dict is sent as JSON,
    a str as it is, and None is the first half of a reply whose connection then breaks.
    """

    def __init__(self, answer: Callable[[str, int, dict], tuple[int, dict[str, str], Any]]) -> None:
        self.answer, self.lock = answer, threading.Lock()
        self.tries: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        """Replies of status 200 whose body is whole: what a vendor bills, whether they were received or not."""
        self.requests: list[dict] = []
        self.keys: set[str] = set()
        self.url = ""


@contextmanager
def serving(answer):
    """Run an `Endpoint` on a free port."""
    state = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = request["messages"][-1]["content"][0]["text"].split("\n\nAnswer with one JSON")[0]
            with state.lock:
                number = state.tries[text]
                state.tries[text] += 1
                state.requests.append(request)
                state.keys.add(self.headers["Authorization"])
            status, headers, body = state.answer(text, number, request)
            sent = body if isinstance(body, str) else json.dumps(body or completion({"label": "never whole"}))
            if status == 200 and body is not None:
                with state.lock:
                    state.paid[text] += 1
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent.encode())))
                self.end_headers()
                self.wfile.write(sent.encode()[: len(sent) // 2] if body is None else sent.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.close_connection = self.close_connection or body is None

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *words: None  # a client was killed
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
