"""A receiver of notifications on loopback: one server, a path with a secret for each receiver, trouble on demand."""

import json
import secrets
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Json = dict[str, Any]


@dataclass
class Post:
    """One request that came."""

    id: str
    body: Json
    answer: int


@dataclass
class Receivers:
    """Answers 200 to every receiver but those whose `answers` say otherwise; a hanging one gets no answer."""

    answers: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """What each answers next, with headers; 200 once there is nothing left."""
    hanging: set[str] = field(default_factory=set)
    posts: defaultdict[str, list[Post]] = field(default_factory=lambda: defaultdict(list))
    secret: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}")
    """Stands in every address and should stand nowhere else."""

    def __enter__(self) -> Self:
        """Listen."""
        receivers = self
        self._release = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                _, name, secret = self.path.split("/")
                assert secret == receivers.secret
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if name in receivers.hanging:
                    receivers._release.wait()
                left = receivers.answers.get(name)
                status, headers = left.pop(0) if left else (200, {})
                receivers.posts[name].append(Post(self.headers["Rollway-Notification-Id"], body, status))
                # Whoever repeats an answer repeats the secret.
                text = f"no {self.path}".encode()
                self.send_response(status)
                for key, value in (headers | {"Content-Length": str(len(text))}).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing of clients that went away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Let hanging requests go, and end."""
        self._release.set()
        self._server.shutdown()
        self._server.server_close()

    def told(self, name: str) -> list[str]:
        """Name the events that a receiver took, in their order."""
        return [post.body["event"] for post in self.posts[name] if post.answer == 200]

    def address(self, name: str) -> str:
        """Give the address of a receiver, which is a secret."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}/{self.secret}"

    def settings(self, folder: Path, *definitions: Json, addresses: dict[str, str]) -> dict[str, str]:
        """Write what the chart would mount; give the operator's environment."""
        file = folder / "notifications.json"
        named = [
            {"urlSecret": {"name": f"hook-{each['name']}", "key": "url"}, **each} for each in definitions
        ]
        file.write_text(json.dumps({"receivers": named}))
        for name, address in addresses.items():
            (folder / "receivers" / name).mkdir(parents=True)
            (folder / "receivers" / name / "url").write_text(f"{address}\n")
        return {
            "ROLLWAY_NOTIFICATIONS_FILE": str(file),
            "ROLLWAY_RECEIVERS_FOLDER": str(folder / "receivers"),
        }
