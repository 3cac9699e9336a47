"""A server on loopback that does whatever a server can do to a client."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing when the client leaves: it is meant to."""


class Rogue:
    """A server on 127.0.0.1 that meets every request, GET or POST, with its present behaviour."""

    def __init__(self, behave: Behaviour) -> None:
        """Behave so until told otherwise."""
        self.behave = behave
        self.asked: list[str] = []
        """The paths of the requests."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 - self is the rogue
                self.asked.append(handler.path)
                self.behave(handler)

            def do_POST(handler) -> None:  # noqa: N805
                handler.rfile.read(int(handler.headers["Content-Length"]))
                handler.do_GET()

            def log_message(handler, format: str, *arguments: object) -> None:  # noqa: A002, N805
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answers(status: int, body: bytes, **headers: str) -> Behaviour:
    """Answer at once; dashes in the names of headers are underscores here."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def trickles(handler: BaseHTTPRequestHandler) -> None:
    """Answer with a byte every tenth of a second, for a minute."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"#")
        handler.wfile.flush()
        if threading.Event().wait(0.1):
            return


def never_ends(size: int) -> Behaviour:
    """Answer with so many bytes."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(size // 65536):
            handler.wfile.write(b"#" * 65536)

    return behave


def is_silent(handler: BaseHTTPRequestHandler) -> None:
    """Answer nothing until the client leaves."""
    handler.rfile.read(1)


def speaks_another_tongue(handler: BaseHTTPRequestHandler) -> None:
    """Answer with what is no HTTP."""
    handler.wfile.write(b"\x16\x03\x01 SSH-2.0-OpenSSH\r\n\r\n" * 100)


def promises_more(body: bytes) -> Behaviour:
    """Say that the answer is longer than it is."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        handler.wfile.write(body)

    return behave
