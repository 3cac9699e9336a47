"""The misbehaving proxy as tests use it: a child process before one server, and its rules."""

import sys
from pathlib import Path
from typing import Any

import httpx

import rollway_faultproxy
from rollway_faultproxy.rules import Rule
from rollway_testing.processes import Server, free_port


class FaultProxy(Server):
    """`python -m rollway_faultproxy` before an API server, by its kubeconfig, or before any other by its address."""

    def __init__(self, path: Path, *, kubeconfig: Path | None = None, upstream: str | None = None) -> None:
        """Stand before one of the two."""
        super().__init__(path)
        self._behind = f"--kubeconfig={kubeconfig}" if kubeconfig else f"--upstream={upstream}"
        self._port, self._control = free_port(), free_port()
        self.kubeconfig = path / "kubeconfig"

    @property
    def url(self) -> str:
        """Where it answers in the server's place."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def health_urls(self) -> list[str]:
        """Its own address, where rules are set."""
        return [f"http://127.0.0.1:{self._control}/counts"]

    def command(self) -> list[str]:
        """Return the command line."""
        ports = (f"--port={self._port}", f"--control-port={self._control}")
        return [
            *(sys.executable, "-m", "rollway_faultproxy", self._behind),
            *(*ports, f"--write-kubeconfig={self.kubeconfig}"),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment, in which the package is found."""
        return super().environment() | {"PYTHONPATH": str(Path(rollway_faultproxy.__file__).parents[1])}

    def put(self, name: str, rule: Rule) -> None:
        """Put a rule in force."""
        self._ask("PUT", f"rules/{name}", content=rule.model_dump_json())

    def withdraw(self, name: str) -> None:
        """Take a rule away; what it holds goes on."""
        self._ask("DELETE", f"rules/{name}")

    def clear(self) -> None:
        """Take every rule away."""
        self._ask("DELETE", "rules")

    def end_streams(self) -> int:
        """End every stream of events that is open: whoever follows one asks again; tell how many there were."""
        return int(self._ask("DELETE", "streams"))

    def fired(self, name: str) -> int:
        """Tell on how many calls a rule has acted."""
        return int(self._ask("GET", "rules")[name]["fired"])

    def calls(self, after: int = 0) -> list[dict[str, Any]]:
        """Give the record of the calls after one."""
        found: list[dict[str, Any]] = self._ask("GET", f"calls?after={after}")
        return found

    def counts(self) -> dict[str, int]:
        """Tell how many calls there were, by verb and resource."""
        found: dict[str, int] = self._ask("GET", "counts")
        return found

    def _ask(self, method: str, path: str, content: str | None = None) -> Any:
        url = f"http://127.0.0.1:{self._control}/{path}"
        # There is no TLS here, and to make ready for it would take longer than the answer.
        answer = httpx.request(method, url, content=content, trust_env=False, verify=False, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()
