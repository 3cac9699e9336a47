"""What kubectl is told while a person types."""

import pytest

from kubectl_rollway.completion import completions
from kubectl_rollway.errors import UnreachableError
from rollway_testing.fake_cluster import REVISIONS, FakeCluster, at_rest, deployment

NO_FILES = ":4"


@pytest.fixture
def served(cluster: FakeCluster) -> FakeCluster:
    other = at_rest()
    other["metadata"] |= {"namespace": "team-b", "name": "spam"}
    cluster.add(at_rest()).add(deployment(name="churn")).add(other).stored = REVISIONS
    return cluster


def offered(cluster: FakeCluster, *words: str) -> list[str]:
    *lines, directive = completions(words, cluster.surroundings())
    assert directive == NO_FILES
    return [line.split("\t")[0] for line in lines]


def test_commands_and_options(served: FakeCluster) -> None:
    assert offered(served, "re") == ["resolve", "retry", "resume", "restart"]
    assert "wait" in offered(served, "")
    assert "--timeout" in offered(served, "wait", "--t")
    assert offered(served, "wait", "fraud", "--for", "") == ["promoted", "settled"]
    assert offered(served, "get", "-o", "") == ["json", "yaml", "wide"]


def test_names_of_the_namespace_that_is_meant(served: FakeCluster) -> None:
    assert offered(served, "status", "") == ["fraud", "churn"]
    assert offered(served, "promote", "f") == ["fraud"]
    assert offered(served, "promote", "-n", "team-b", "") == ["spam"]
    assert offered(served, "--namespace=team-b", "promote", "") == ["spam"]
    assert offered(served, "get", "fraud", "") == ["fraud", "churn"]
    assert "fraud\tfraud-detector v12 Healthy" in completions(["status", "f"], served.surroundings())


def test_revisions_of_what_is_named(served: FakeCluster) -> None:
    assert offered(served, "undo", "fraud", "--to", "") == [
        "fraud-8d1a22c0",
        "fraud-7c9f0a1b",
        "fraud-55aa55aa",
    ]
    assert offered(served, "undo", "-n", "team-b", "fraud", "--to", "fraud-5") == ["fraud-55aa55aa"]
    assert served.asked[-1] == ("revisions of fraud", "team-b")
    assert offered(served, "undo", "--to", "") == []


def test_namespaces(served: FakeCluster) -> None:
    assert offered(served, "status", "-n", "") == ["team-a", "team-b"]


def test_files_are_left_to_the_shell(served: FakeCluster) -> None:
    assert completions(["lint", ""], served.surroundings()) == ["yaml", "yml", ":8"]
    assert completions(["get", "--kubeconfig", ""], served.surroundings()) == [":0"]


def test_trouble_offers_nothing_and_says_nothing(served: FakeCluster) -> None:
    served.forbids["deployments"] = UnreachableError("away")
    assert offered(served, "status", "") == []
    assert completions([], served.surroundings())[-1] == NO_FILES
