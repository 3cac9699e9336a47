"""kubectl and helm against one named context, never the one that happens to be current."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollway_cluster.errors import ClusterError
from rollway_cluster.forward import PortForward

Object = dict[str, Any]
_FIELD_MANAGER = "rollway-cluster"
MADE_BY = {"app.kubernetes.io/managed-by": _FIELD_MANAGER}
_SECONDS_BETWEEN_LOOKS = 0.5
_WARNINGS_SHOWN = 3


@dataclass(frozen=True)
class Client:
    """A cluster as its two command lines reach it."""

    kubectl: Path
    helm: Path
    kubeconfig: Path
    context: str

    def run(self, *arguments: str, given: str | None = None, seconds: float = 60.0) -> str:
        """Return what kubectl prints."""
        return self._run([*self._kubectl(), *arguments], given, seconds)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, or None where there is none."""
        text = self.run("get", kind, name, *_in(namespace), "--ignore-not-found", "--output=json")
        return json.loads(text) if text.strip() else None

    def find(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Return the objects of a kind, oldest first."""
        text = self.run("get", kind, *_in(namespace), f"--selector={selector}", "--output=json")
        items: list[Object] = json.loads(text)["items"]
        return sorted(items, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def apply(self, *objects: Object, namespace: str | None = None) -> None:
        """Apply objects by server-side apply."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        apply = ("apply", "--server-side", f"--field-manager={_FIELD_MANAGER}", "--force-conflicts")
        self.run(*apply, *_in(namespace), "--filename=-", given=text)

    def delete(self, kind: str, name: str, namespace: str | None = None, seconds: float = 120.0) -> None:
        """Delete an object and wait until it is gone."""
        wait = ("--ignore-not-found", f"--timeout={seconds:.0f}s")
        self.run("delete", kind, name, *_in(namespace), *wait, seconds=seconds + 10)

    def install(
        self, release: str, chart: Path, namespace: str, values: Object, seconds: float = 300.0
    ) -> None:
        """Install or upgrade a chart and wait until what it made is ready."""
        command = [
            *self._helm(),
            *("upgrade", "--install", release, str(chart), "--namespace", namespace),
            *("--wait", "--timeout", f"{seconds:.0f}s", "--values", "-"),
        ]
        try:
            self._run(command, json.dumps(values), seconds + 30)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{diagnose(self, namespace)}") from error

    def uninstall(self, release: str, namespace: str, seconds: float = 120.0) -> None:
        """Remove a release, if it is there, and wait until what it made is gone."""
        wait = ("--ignore-not-found", "--wait", "--timeout", f"{seconds:.0f}s")
        self._run([*self._helm(), "uninstall", release, "--namespace", namespace, *wait], None, seconds + 30)

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str,
        until: Callable[[Object | None], bool],
        *,
        seconds: float,
        say: Callable[[str], None] = lambda _: None,
        told: Callable[[Object], str] = lambda _: "",
    ) -> Object | None:
        """Look at an object until a condition holds; ``say`` hears what ``told`` makes of it whenever that changes."""
        deadline = time.monotonic() + seconds
        last = ""
        while True:
            found = self.get(kind, name, namespace)
            sentence = told(found) if found else ""
            if sentence and sentence != last:
                say(sentence)
                last = sentence
            if until(found):
                return found
            if time.monotonic() > deadline:
                reached = f"; it says: {last}" if last else ""
                raise ClusterError(
                    f"{kind} {namespace}/{name} did not get there in {seconds:.0f} s{reached}\n"
                    f"{diagnose(self, namespace)}\n"
                    f"look at: {self.command('describe', kind, name, '--namespace', namespace)}"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    @contextlib.contextmanager
    def forward(self, target: str, namespace: str, port: int) -> Iterator[int]:
        """Reach a port of a Service or a pod by a port of this machine's loopback."""
        command = [*self._kubectl(), "port-forward", *_in(namespace), target, "--address=127.0.0.1"]
        with PortForward(command, port, self._environment()) as forward:
            yield forward.local

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        """Start kubectl with its output on a pipe; the caller ends it."""
        return subprocess.Popen(
            [*self._kubectl(), *arguments], stdout=subprocess.PIPE, text=True, env=self._environment()
        )

    def command(self, *arguments: str) -> str:
        """A command line for the person at the terminal."""
        return " ".join([f"KUBECONFIG={self.kubeconfig}", "kubectl", f"--context={self.context}", *arguments])

    def _kubectl(self) -> list[str]:
        return [str(self.kubectl), f"--context={self.context}"]

    def _helm(self) -> list[str]:
        return [str(self.helm), "--kube-context", self.context]

    def _environment(self) -> Mapping[str, str]:
        return os.environ | {"KUBECONFIG": str(self.kubeconfig)}

    def _run(self, command: list[str], given: str | None, seconds: float) -> str:
        name = " ".join([Path(command[0]).name, *command[1:]])
        try:
            done = subprocess.run(
                command,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=self._environment(),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{name}: no end after {seconds:.0f} s") from error
        if done.returncode != 0:
            raise ClusterError(f"{name} failed ({done.returncode}):\n{(done.stderr or done.stdout).strip()}")
        return done.stdout


def diagnose(client: Client, namespace: str) -> str:
    """Say which pods of a namespace are unwell and why, or else what the last warnings were."""
    pods = client.find("pods", namespace)
    lines = [line for pod in pods for line in _unwell(client, pod)]
    events = client.find("events", namespace)
    warnings = [event for event in events if event.get("type") == "Warning"]
    for event in warnings[-_WARNINGS_SHOWN:]:
        about = event["involvedObject"]
        lines.append(f"  {about['kind']} {about['name']}: {event['reason']}: {event['message']}")
    if not lines:
        lines.append(f"  {len(pods)} pods, all ready, and no warning")
    return "\n".join([f"in namespace {namespace}:", *dict.fromkeys(lines)])


def complaints(pod: Object) -> dict[str, str]:
    """Each container of a pod that is not ready, with why; a pod that no node took has one complaint, under ``""``."""
    status = pod.get("status", {})
    if status.get("phase") == "Succeeded":
        return {}
    found = {}
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            found[""] = f"{condition.get('reason')}: {condition.get('message')}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if not container.get("ready"):
            found[container["name"]] = _state(container)
    return found


def _state(container: Object) -> str:
    state, last = container.get("state", {}), container.get("lastState", {})
    ended = state.get("terminated") or last.get("terminated")
    waiting = state.get("waiting", {})
    parts = [f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")] if waiting else []
    if ended:
        message = str(ended.get("message", "")).strip()
        parts.append(f"ended with {ended.get('exitCode')} ({ended.get('reason')}) {message}".rstrip())
    if not parts:
        parts.append("runs, but is not ready")
    return ", ".join(parts) + f", restarts {container.get('restartCount', 0)}"


def _unwell(client: Client, pod: Object) -> Iterator[str]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for container, why in complaints(pod).items():
        yield f"  pod {name} {container}: {why}"
        with contextlib.suppress(ClusterError):
            if container and (
                logged := client.run("logs", name, *_in(namespace), "-c", container, "--tail=5")
            ):
                yield from (f"    | {line}" for line in logged.splitlines())


def _in(namespace: str | None) -> tuple[str, ...]:
    return (f"--namespace={namespace}",) if namespace else ()
