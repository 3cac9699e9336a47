"""A private authority, and a door that speaks TLS in front of a server that does not."""

import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import trustme

_CHUNK = 1 << 16


class TlsDoor:
    """Passes on what comes over TLS to a plain server on loopback, byte for byte."""

    def __init__(self, behind: str, name: str = "127.0.0.1") -> None:
        """Stand before the server of this URL, with a certificate for this name by an authority of its own."""
        self.authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(self._context)
        parts = urlsplit(behind)
        self._behind = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.handshakes = 0

    @property
    def url(self) -> str:
        """Where clients knock."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def write_bundle(self, path: Path) -> Path:
        """Write the authority's certificate."""
        self.authority.cert_pem.write_to_path(str(path))
        return path

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Let go of the port."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                secure = self._context.wrap_socket(client, server_side=True)
            except OSError:  # a client that does not believe the certificate
                return
            self.handshakes += 1
            with secure, socket.create_connection(self._behind) as server:
                back = threading.Thread(target=_pump, args=(server, secure), daemon=True)
                back.start()
                _pump(secure, server)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
