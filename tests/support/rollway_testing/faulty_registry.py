"""A tracking server that can be told to misbehave: it stands before the real one, in a pod, and counts what it does.
Before any other server of JSON, such as Prometheus, it does the same.

Run as `python faulty_registry.py http://mlflow.mlflow.svc:5000`. `PUT /fault` with one of the names below sets the
fault; `GET /fault` tells how often each was shown. It uses the standard library alone: one file can be mounted.
"""

import http.server
import json
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from http import HTTPStatus
from typing import Any

PORT = 5000
FAULTS = ("none", "disconnecting", "error", "html", "hanging")
_LONGEST_HANG = 120.0


class Switch:
    """Which fault is on, and how often each was shown."""

    def __init__(self) -> None:
        """Start without a fault."""
        self.fault = "none"
        self.shown: Counter[str] = Counter()
        self.changed = threading.Event()

    def turn(self, fault: str) -> None:
        """Turn to another fault; whoever hangs is let go."""
        self.fault = fault
        self.changed.set()
        self.changed = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes requests on, or shows the fault that is on."""

    protocol_version = "HTTP/1.1"
    switch = Switch()
    upstream = ""

    def do_GET(self) -> None:
        """Tell the counts, or answer for the tracking server."""
        if self.path == "/fault":
            self._answer(HTTPStatus.OK, "application/json", json.dumps(self.switch.shown).encode())
        else:
            self._stand_in()

    def do_POST(self) -> None:
        """Answer for the tracking server."""
        self._stand_in()

    def do_PUT(self) -> None:
        """Turn a fault on."""
        fault = str(json.loads(self._body()))
        known = fault in FAULTS
        if known:
            self.switch.turn(fault)
        self._answer(
            HTTPStatus.OK if known else HTTPStatus.BAD_REQUEST, "application/json", json.dumps(fault).encode()
        )

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Say which fault was on, too."""
        print(self.switch.fault, format % arguments, flush=True)

    def _stand_in(self) -> None:
        fault = self.switch.fault
        self.switch.shown[fault] += 1
        body = self._body()
        if fault == "none":
            self._pass_on(body)
        elif fault == "error":
            self._answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", b'{"error_code":"INTERNAL_ERROR"}'
            )
        elif fault == "html":
            self._answer(HTTPStatus.OK, "text/html", b"<html><body>Sign in to go on</body></html>")
        else:
            if fault == "hanging":
                self.switch.changed.wait(_LONGEST_HANG)
            self.close_connection = True

    def _pass_on(self, body: bytes) -> None:
        request = urllib.request.Request(self.upstream + self.path, data=body or None, method=self.command)
        request.add_header("Content-Type", self.headers.get("Content-Type", "application/json"))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                self._answer(answer.status, answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.headers["Content-Type"], error.read())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.upstream = sys.argv[1]
    http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
