"""A secret to be looked for where it should not be, and a tracking server that repeats what it is shown."""

import base64
import json
import secrets
import threading
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import httpx

_JSON = "application/json"


@dataclass(frozen=True)
class Canary:
    """A secret that nobody else has."""

    text: str
    data: dict[str, str]
    """What the Secret holds."""
    header: str
    """What carries it to the tracking server."""

    @property
    def forms(self) -> set[str]:
        """How it may look where it should not be."""
        return {self.text, self.header.split()[1], base64.b64encode(self.text.encode()).decode()}

    @classmethod
    def token(cls) -> Self:
        """Make one that is a bearer token."""
        text = _text()
        return cls(text, {"token": text}, f"Bearer {text}")

    @classmethod
    def password(cls) -> Self:
        """Make one that is a password."""
        text = _text()
        pair = base64.b64encode(f"rollway:{text}".encode()).decode()
        return cls(text, {"username": "rollway", "password": text}, f"Basic {pair}")


def _text() -> str:
    return f"canary-{secrets.token_hex(16)}"


class Echo:
    """A tracking server that asks for credentials, and at will misbehaves and repeats them in its answer."""

    faults = ("refused", "forbidden", "error", "html", "redirect", "unusable", "missing", "cut")

    def __init__(self, upstream: str, canary: Canary) -> None:
        """Pass on to ``upstream`` what shows the canary, as long as there is no fault."""
        self.fault = ""
        self.shown: Counter[str] = Counter()
        self.canary = canary
        echo = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                assert given == canary.header, "these are other credentials"
                echo.shown[echo.fault] += 1
                if echo.fault == "cut":
                    self.close_connection = True
                elif echo.fault:
                    self._answer(*echo.answer(given))
                else:
                    answer = httpx.get(f"{upstream}{self.path}", trust_env=False)
                    self._answer(answer.status_code, answer.headers["content-type"], answer.text, {})

            def _answer(self, status: int, kind: str, body: str, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in (
                    {"Content-Type": kind, "Content-Length": str(len(body))} | headers
                ).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, given: str) -> tuple[int, str, str, dict[str, str]]:
        """Give status, content type, body and headers, each with the credentials in it."""
        said = json.dumps({"error_code": given, "message": f"cannot use {given}"})
        gone = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": given})
        odd = json.dumps({"registered_model": {"name": given, "aliases": given, given: given}})
        elsewhere = {"Location": f"{self.uri}/{given.split()[1]}"}
        return {
            "refused": (HTTPStatus.UNAUTHORIZED, _JSON, said, {"WWW-Authenticate": given}),
            "forbidden": (HTTPStatus.FORBIDDEN, _JSON, said, {}),
            "error": (HTTPStatus.INTERNAL_SERVER_ERROR, _JSON, said, {}),
            "html": (HTTPStatus.OK, "text/html", f"<html>{given}</html>", {}),
            "redirect": (HTTPStatus.FOUND, "text/plain", given, elsewhere),
            "missing": (HTTPStatus.NOT_FOUND, _JSON, gone, {}),
            "unusable": (HTTPStatus.OK, _JSON, odd, {}),
        }[self.fault]
