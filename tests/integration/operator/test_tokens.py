"""The operator logged in by a service account's token, as in a pod: the token is revoked, and another one comes."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.in_pod import FOLDER
from rollway_testing.kills import FIRST, SECOND, until_ended
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import REPOSITORY, OperatorProcess, RegisteredModel, Story
from rollway_testing.waiting import eventually, throughout

ACCOUNT = "rollway"


class OperatorInPod(OperatorProcess):
    """The operator's process with a service account's files, and nothing else to log in by."""

    def __init__(self, path: Path, plane: ControlPlane, namespace: str) -> None:
        super().__init__(path, plane.kubeconfig, namespace=namespace, serves=namespace, resync=1)
        self._server = plane.server
        shutil.copy(plane.authority, path / "ca.crt")

    def give(self, token: str) -> None:
        """Put a token where the kubelet would, at once for whoever reads."""
        new = self.path / "token.new"
        new.write_text(token)
        new.rename(self.path / "token")

    def command(self) -> list[str]:
        return [sys.executable, "-m", "rollway_testing.in_pod"]

    def environment(self) -> dict[str, str]:
        host, _, port = self._server.removeprefix("https://").rpartition(":")
        environment = super().environment() | {
            FOLDER: str(self.path),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        environment["PYTHONPATH"] += f":{REPOSITORY / 'tests' / 'support'}"
        del environment["KUBECONFIG"]
        return environment


@pytest.fixture
def in_pod(
    plane: ControlPlane, namespace: str, registry: str, alone: None, tmp_path: Path
) -> Iterator[OperatorInPod]:
    """The operator with an account of its own."""
    plane.kubectl("create", "serviceaccount", ACCOUNT, f"--namespace={namespace}")
    account = f"--serviceaccount={namespace}:{ACCOUNT}"
    plane.kubectl(
        "create", "clusterrolebinding", f"{namespace}-{ACCOUNT}", "--clusterrole=cluster-admin", account
    )
    process = OperatorInPod(tmp_path, plane, namespace)
    yield process
    process.stop()
    plane.kubectl("delete", "clusterrolebinding", f"{namespace}-{ACCOUNT}")


def new_token(plane: ControlPlane, namespace: str, bound_to: str) -> str:
    """Make a token that ends with a Secret."""
    plane.kubectl("create", "secret", "generic", bound_to, f"--namespace={namespace}")
    bound = ("--bound-object-kind=Secret", f"--bound-object-name={bound_to}")
    return plane.kubectl("create", "token", ACCOUNT, f"--namespace={namespace}", *bound).strip()


@pytest.mark.thorough
def test_a_revoked_token_ends_nothing_and_the_next_one_is_taken(
    in_pod: OperatorInPod, plane: ControlPlane, story: Story, model: RegisteredModel, api: Kubernetes
) -> None:
    model.add_version()
    in_pod.give(new_token(plane, story.namespace, "first"))
    in_pod.start()
    FIRST.act(story)
    until_ended(story, FIRST)
    api.delete("Secret", "first", story.namespace)
    eventually(lambda: "401" in in_pod.log.read_text(), within=60, what="the API server refuses the token")
    SECOND.act(story)
    throughout(lambda: in_pod.running and story.pointed_at(), bool, seconds=10, what="it runs, and it serves")
    in_pod.give(new_token(plane, story.namespace, "second"))
    until_ended(story, SECOND, within=120)
    assert in_pod.running
    assert in_pod.restarts == 0
