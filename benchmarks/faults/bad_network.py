"""A server of this machine that answers as networks at their worst do, and speaks as the hub."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOGIN = b"<html><body>Please log in to the network of the hospital.</body></html>"


class BadServer(ThreadingHTTPServer):
    """Serves `content` by path, in a way that `fault` names; empty: as it should."""

    daemon_threads = True

    def __init__(self, fault: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = fault
        self.content: dict[str, bytes] = {}
        self.served: list[str] = []  # paths, as often as they were asked for

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(fault: str = "") -> Iterator[BadServer]:
    """A server while the block runs."""
    with BadServer(fault) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: BadServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing on the screen."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self.server.served.append(self.path)
        with suppress(OSError):
            self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.close_connection = True
        path, fault = self._path(), self.server.fault
        if fault in ("500", "407", "404"):
            return self._head(int(fault), {"Content-Length": "0"})
        if fault == "redirect loop":
            there = {"Location": f"{self.server.url}{self.path}x", "Content-Length": "0"}
            return self._head(302, there)
        if fault == "redirect nowhere":
            return self._head(302, {"Location": "http://[no address", "Content-Length": "0"})
        if fault == "login":
            self._head(200, {"Content-Length": str(len(LOGIN)), "Content-Type": "text/html"})
            return self._send(LOGIN, with_body=with_body)
        body = self.server.content.get(path)
        if body is None:
            return self._head(404, {"Content-Length": "0"})
        self._serve(body, fault, with_body=with_body)
        return None

    def _path(self) -> str:
        """Also as a client asks a proxy: with the whole address."""
        return "/" + self.path.split("//", 1)[-1].split("/", 1)[-1].lstrip("/")

    def _serve(self, body: bytes, fault: str, *, with_body: bool) -> None:
        headers = {"X-Repo-Commit": "main", "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        wanted = self.headers.get("Range")
        start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        if start and start >= len(body):
            return self._head(416, {"Content-Length": "0"})
        part = body[start:]
        if fault == "endless":
            self._head(200, {**headers, "Transfer-Encoding": "chunked"})
            while with_body:
                self.wfile.write(b"40000\r\n" + bytes(0x40000) + b"\r\n")
            return None
        if fault == "no end":  # neither a length nor chunks: a cut cannot be told
            self._head(200, headers)
            return self._send(part[: len(part) // 2], with_body=with_body)
        self._head(206 if start else 200, {**headers, "Content-Length": str(len(part))})
        if fault == "wrong bytes":
            part = bytes(len(part))
        if fault == "cut":
            part = part[: len(part) // 2]
        if fault == "crumbs":  # a few bytes, then the connection is gone
            part = part[:100]
        return self._send(part, with_body=with_body)

    def _send(self, part: bytes, *, with_body: bool) -> None:
        if not with_body:
            return
        if self.server.fault in ("slow", "steady"):
            step = 20 if self.server.fault == "slow" else max(1, len(part) // 10)
            for start in range(0, len(part), step):
                self.wfile.write(part[start : start + step])
                self.wfile.flush()
                time.sleep(0.1)
            return
        self.wfile.write(part)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()
