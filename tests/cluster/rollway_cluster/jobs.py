"""The sample model's training and clients as pods, whose answers are the JSON lines of their logs."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rollway_cluster.client import Client, Object, diagnose
from rollway_cluster.errors import ClusterError

Line = dict[str, Any]
_CONTAINER = "main"
_SECONDS_TO_STOP = 30.0


class JobFailedError(ClusterError):
    """A Job's program ended with an error; ``lines`` are what it had said by then."""

    def __init__(self, message: str, lines: Sequence[Line]) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


def run(
    client: Client,
    namespace: str,
    name: str,
    pod: Object,
    *,
    seconds: float = 180.0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Line]:
    """Run a pod to its end, as a Job that replaces one of the same name, and return its JSON lines."""
    client.delete("job", name, namespace)
    client.apply(job(name, namespace, pod))
    ended = client.wait("job", name, namespace, _ended, seconds=seconds, say=say, told=_progress())
    text = client.run("logs", f"job/{name}", f"--namespace={namespace}", "--tail=-1")
    lines, sentences = split(text.splitlines())
    for sentence in sentences:
        say(sentence)
    if ended and ended["status"].get("succeeded"):
        return lines
    raise JobFailedError(
        f"job {namespace}/{name} failed\n{diagnose(client, namespace)}\n"
        f"look at: {client.command('logs', f'job/{name}', f'--namespace={namespace}')}",
        lines,
    )


def pod(image: str, command: Sequence[str], environment: Mapping[str, Any]) -> Object:
    """A pod of one program under the restricted Pod Security standard; a variable's value may be a ``valueFrom``."""
    variables = [
        {"name": name, **(value if isinstance(value, Mapping) else {"value": value})}
        for name, value in environment.items()
    ]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": _CONTAINER,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(command),
                "env": variables,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def job(name: str, namespace: str, spec: Object) -> Object:
    """A Job that runs a pod once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }


def from_secret(name: str, key: str) -> Object:
    """A variable's value that comes out of a Secret."""
    return {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def split(text: Iterable[str]) -> tuple[list[Line], list[str]]:
    """Part a program's log into its JSON lines and its sentences."""
    lines, sentences = [], []
    for line in text:
        if line.startswith("{"):
            lines.append(json.loads(line))
        elif line.strip():
            sentences.append(line)
    return lines, sentences


class Traffic:
    """Constant requests out of a pod, from ``start`` to ``stop``; every answer is one of its lines."""

    def __init__(self, client: Client, namespace: str, name: str, spec: Object) -> None:
        """Prepare a pod that replaces one of the same name."""
        self._client, self._namespace, self._name, self._spec = client, namespace, name, spec
        self._lines: list[Line] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def lines(self) -> list[Line]:
        """The answers so far."""
        return [line for line in self._lines if "number" in line]

    def start(self) -> None:
        """Start the pod and return at its first answer."""
        self._client.delete("pod", self._name, self._namespace)
        metadata = {"name": self._name, "namespace": self._namespace}
        self._client.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self._spec})
        self._client.wait("pod", self._name, self._namespace, _has_started, seconds=120)
        self._process = self._client.follow("logs", "--follow", self._name, f"--namespace={self._namespace}")
        reader = threading.Thread(target=self._read, args=(self._process,), name="traffic", daemon=True)
        reader.start()
        self._await_first(reader)

    def stop(self) -> list[Line]:
        """End the traffic and return every answer."""
        end = ("python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        self._client.run("exec", self._name, f"--namespace={self._namespace}", "--", *end)
        self._client.wait("pod", self._name, self._namespace, _has_ended, seconds=_SECONDS_TO_STOP)
        # The whole log: what was followed may lack its end.
        text = self._client.run("logs", self._name, f"--namespace={self._namespace}", "--tail=-1")
        self._lines, _ = split(text.splitlines())
        return self.lines

    def remove(self) -> None:
        """Remove the pod, whether it still runs or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._client.delete("pod", self._name, self._namespace)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as followed:
            for text in followed:
                # What follows is cut anywhere: the last line may be a part.
                if text.startswith("{") and text.endswith("\n"):
                    self._lines.append(json.loads(text))

    def _await_first(self, reader: threading.Thread) -> None:
        deadline = time.monotonic() + 60
        while not self.lines:
            if time.monotonic() > deadline or not reader.is_alive():
                raise ClusterError(
                    f"pod {self._namespace}/{self._name} sends no traffic\n"
                    f"{diagnose(self._client, self._namespace)}\n"
                    f"look at: {self._client.command('logs', self._name, f'--namespace={self._namespace}')}"
                )
            time.sleep(0.1)


def _ended(found: Object | None) -> bool:
    status = (found or {}).get("status", {})
    return bool(status.get("succeeded") or status.get("failed"))


def _progress() -> Callable[[Object], str]:
    """What to tell of a Job; its pod is ready once, and what comes after that is its end."""
    ran = False

    def told(found: Object) -> str:
        nonlocal ran
        ran = ran or bool(found.get("status", {}).get("ready"))
        return f"{found['metadata']['name']}: {'its pod runs' if ran else 'its pod is starting'}"

    return told


def _has_started(found: Object | None) -> bool:
    return found is not None and found["status"].get("phase") not in (None, "Pending")


def _has_ended(found: Object | None) -> bool:
    return found is not None and found["status"].get("phase") in ("Succeeded", "Failed")
