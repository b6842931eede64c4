"""A real HTTP server in threads: a small API of records that misbehaves as it is told.

It remembers every request, applies what it accepts, and answers a key that it has seen as it did before,
as servers that honour `Idempotency-Key` do, unless `forgetful`.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

__all__ = ["ApiServer", "Reply", "Seen", "api_server"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request."""

    method: str
    path: str
    key: str
    headers: dict[str, str]
    text: str
    at: float

    @property
    def body(self) -> Any:
        """The JSON that was sent; None without."""
        return json.loads(self.text) if self.text else None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a rule makes the server do."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    apply: bool = False
    """Change the records before."""
    drop: bool = False
    """Close the connection instead of answering."""
    delay: float = 0.0
    """Seconds before the answer."""


Rule = Callable[[Seen], Reply | None]


class ApiServer:
    """Records at `/people/ID`, their collection at `/people`."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.seen: list[Seen] = []
        self.applied: list[str] = []
        """The keys of the requests that changed something, in order."""
        self.rule: Rule = lambda _: None
        """Gives a reply, or None for good behaviour."""
        self.forgetful = False
        self.lock = threading.Lock()
        self._answers: dict[str, Reply] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer.handle(self)

            do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 -- the base class's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
                """Be silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients may go away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/people"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Take one request."""
        length = int(request.headers.get("content-length") or 0)
        body = request.rfile.read(length)
        if len(body) < length:
            # The sender died in the middle of it: no server takes such a request for one.
            request.close_connection = True
            return
        seen = Seen(
            method=request.command,
            path=request.path,
            key=request.headers.get("idempotency-key", ""),
            headers={name.lower(): value for name, value in request.headers.items()},
            text=body.decode(),
            at=time.monotonic(),
        )
        with self.lock:
            self.seen.append(seen)
            reply = self.rule(seen)
            if reply is None:
                reply = self._behave(seen)
            elif reply.apply:
                self._behave(seen)
        time.sleep(reply.delay)
        if reply.drop:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        content = b"" if reply.body is None else json.dumps(reply.body).encode()
        request.send_response(reply.status)
        for name, value in reply.headers.items():
            request.send_header(name, value)
        request.send_header("content-length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _behave(self, seen: Seen) -> Reply:
        if seen.key in self._answers and not self.forgetful:
            return self._answers[seen.key]
        answer = self._apply(seen)
        if answer.status < 300:
            self.applied.append(seen.key)
        self._answers[seen.key] = answer
        return answer

    def _apply(self, seen: Seen) -> Reply:
        if isinstance(seen.body, list):
            results = [self._change(item) for item in seen.body]
            return Reply(status=207, body={"results": results})
        name = unquote(seen.path.partition("?")[0].removeprefix("/people").removeprefix("/"))
        if seen.method == "POST":
            name = str(seen.body["id"])
            if name in self.rows:
                return Reply(status=409, body={"error": "it is there already"})
        elif name not in self.rows:
            return Reply(status=404)
        if seen.method == "DELETE":
            del self.rows[name]
            return Reply(status=204)
        self.rows[name] = {**(self.rows.get(name, {}) if seen.method == "PATCH" else {}), **seen.body}
        return Reply(status=201 if seen.method == "POST" else 200)

    def _change(self, item: Any) -> dict[str, Any]:
        name = str(item["primary_key"]["id"])
        if item["action"] == "delete":
            gone = self.rows.pop(name, None)
            return {"status": 404 if gone is None else 200}
        if item["data"].get("v") == "poison":
            return {"status": 422, "error": "v is poison"}
        self.rows[name] = item["data"]
        return {"status": 200}


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """Serve until the block ends."""
    server = ApiServer()
    try:
        yield server
    finally:
        server.stop()
