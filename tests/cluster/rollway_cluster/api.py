"""A client of the local cluster's API, and a mirror of one kind of object that follows its changes."""

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollway_cluster.layout import Layout

Object = dict[str, Any]
WATCH_SECONDS = 240


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Requests as the administrator; a connection each, so threads may share it."""

    def __init__(self, layout: Layout) -> None:
        address = urlsplit(layout.server)
        self._host, self._port = address.hostname or "", address.port
        self._context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self._context.load_cert_chain(Path(layout.pki / "admin.crt"), Path(layout.pki / "admin.key"))

    def request(self, method: str, path: str, body: Object | None = None, timeout: float = 10.0) -> str:
        """Ask once and return the answer's text."""
        connection = self._connection(timeout)
        try:
            return self._send(connection, method, path, body).read().decode()
        finally:
            connection.close()

    def get(self, path: str, timeout: float = 10.0) -> Object:
        """Read an object or a list."""
        return _mapping(self.request("GET", path, timeout=timeout))

    def watch(self, path: str, version: str) -> Iterator[Object]:
        """Changes of a list since a version, until the API server ends the watch."""
        connection = self._connection(WATCH_SECONDS + 30.0)
        try:
            query = f"{path}?watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
            answer = self._send(connection, "GET", query, None)
            while line := answer.readline():
                yield _mapping(line)
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout)

    def _send(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: Object | None
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(answer.status, answer.read().decode(errors="replace")[:500])
        return answer


class Mirror(threading.Thread):
    """Keeps every object of one kind, and sets an event when any of them changes."""

    def __init__(self, api: Api, path: str, changed: threading.Event) -> None:
        super().__init__(name=f"mirror {path}", daemon=True)
        self._api, self._path, self._changed = api, path, changed
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self.synced = threading.Event()
        self.start()

    def objects(self) -> tuple[Object, ...]:
        """The objects as they were last seen."""
        with self._lock:
            return tuple(self._objects.values())

    def run(self) -> None:
        """List, follow the changes, and list again when the watch breaks off."""
        pause = threading.Event()
        while True:
            try:
                self._follow()
            except (OSError, http.client.HTTPException, ApiError, TypeError, ValueError) as error:
                print(f"{self._path}: {error!r}, listing again", flush=True)
                pause.wait(1.0)

    def _follow(self) -> None:
        listed = self._api.get(self._path)
        with self._lock:
            self._objects = {item["metadata"]["uid"]: item for item in listed["items"]}
        self.synced.set()
        self._changed.set()
        for event in self._api.watch(self._path, listed["metadata"]["resourceVersion"]):
            if event["type"] == "ERROR":
                # The version is too old: a new list gives a new one.
                return
            changed = event["object"]
            with self._lock:
                if event["type"] == "DELETED":
                    self._objects.pop(changed["metadata"]["uid"], None)
                else:
                    self._objects[changed["metadata"]["uid"]] = changed
            self._changed.set()


def _mapping(text: str | bytes) -> Object:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}"[:200])
    return value
