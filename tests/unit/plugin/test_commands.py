"""What the commands that only look print, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kubectl_rollway.commandline import plugin
from kubectl_rollway.errors import ForbiddenError, NotFoundError, UnreachableError
from rollway_testing.fake_cluster import (
    CANARY_POD,
    REVISIONS,
    STABLE_PODS,
    FakeCluster,
    at_rest,
    deployment,
    mid_step,
    rolled_back,
)

from .conftest import Run

COMMANDS = sorted(plugin.list_commands(None))  # type: ignore[arg-type]
NAMED = [command for command in COMMANDS if command not in ("get", "lint", "doctor")]


def test_get_lists_the_namespace(run: Run, cluster: FakeCluster) -> None:
    cluster.add(at_rest())
    other = at_rest()
    other["metadata"] |= {"namespace": "team-b", "name": "churn"}
    cluster.add(other)
    lines = [line.split() for line in run("get").stdout.splitlines()]
    assert lines[0][:3] == ["NAME", "MODEL", "STABLE"]
    assert [line[0] for line in lines[1:]] == ["fraud"]
    everywhere = [line.split() for line in run("get", "-A").stdout.splitlines()]
    assert [line[:2] for line in everywhere] == [
        ["NAMESPACE", "NAME"],
        ["team-a", "fraud"],
        ["team-b", "churn"],
    ]
    assert run("get", "-n", "team-b").stdout.splitlines()[1].startswith("churn")
    assert run("-n", "team-b", "get").stdout.splitlines()[1].startswith("churn")
    assert run("-n", "team-b", "get", "-n", "team-a").stdout.splitlines()[1].startswith("fraud")


def test_get_takes_names(run: Run, cluster: FakeCluster) -> None:
    cluster.add(at_rest()).add(deployment(name="churn"))
    assert [line.split()[0] for line in run("get", "churn", "fraud").stdout.splitlines()] == [
        "NAME",
        "churn",
        "fraud",
    ]
    assert run("get", "churn", "-A").exit_code == 2


def test_a_long_line_is_never_cut(run: Run, cluster: FakeCluster) -> None:
    body = at_rest()
    body["status"]["message"] = "m" * 2000
    cluster.add(body)
    assert "m" * 2000 in run("get", "-o", "wide").stdout


def test_nothing_to_list_is_no_failure(run: Run) -> None:
    result = run("get")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there are no ModelDeployments in namespace team-a" in result.stderr


def test_programs_get_objects(run: Run, cluster: FakeCluster) -> None:
    cluster.add(at_rest())
    assert json.loads(run("get", "-o", "json").stdout) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": [at_rest()],
    }
    assert json.loads(run("get", "fraud", "-o", "json").stdout) == at_rest()
    assert yaml.safe_load(run("get", "fraud", "-o", "yaml").stdout) == at_rest()


def test_programs_get_the_status_with_its_pods(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step()).running = [*STABLE_PODS, CANARY_POD]
    told = json.loads(run("status", "fraud", "-o", "json").stdout)
    assert told["status"] == mid_step()["status"]
    assert told["metadata"] == {"namespace": "team-a", "name": "fraud", "generation": 4}
    assert told["pods"][-1] == {
        "name": "fraud-8d1a22c0-m5n6b",
        "revision": "fraud-8d1a22c0",
        "state": "Running",
        "ready": True,
        "restarts": 1,
    }
    assert yaml.safe_load(run("status", "fraud", "-o", "yaml").stdout) == told


def test_programs_get_history_and_target(run: Run, cluster: FakeCluster) -> None:
    cluster.add(rolled_back()).stored = REVISIONS
    history = json.loads(run("history", "fraud", "-o", "json").stdout)
    assert [(entry["version"], entry["outcome"], entry["now"]) for entry in history] == [
        ("13", "Aborted", "kept"),
        ("12", "Promoted", "stable"),
        ("11", "Promoted", "kept, served"),
    ]
    target = json.loads(run("resolve", "fraud", "-o", "json").stdout)
    assert target["targetVersion"] == "13"
    assert target["closed"]["reason"] == "AnalysisFailed"
    assert target["source"] == {
        "field": "status.model",
        "observedGeneration": 4,
        "generation": 4,
        "current": True,
    }


def test_status_shows_a_tree(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step()).running = [CANARY_POD]
    cluster.stored = REVISIONS
    golden = (Path(__file__).parent / "golden" / "mid-step.txt").read_text()
    shown = run("status", "fraud").stdout
    assert shown.splitlines()[0].rstrip() == golden.splitlines()[0]
    assert "fraud-8d1a22c0-m5n6b Running ready 1 restart" in shown


def test_status_does_without_what_may_not_be_listed(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step())
    cluster.forbids = {"pods": ForbiddenError("no"), "revisions": ForbiddenError("no")}
    result = run("status", "fraud")
    assert result.exit_code == 0
    assert "pods may not be listed" in result.stdout
    assert json.loads(run("status", "fraud", "-o", "json").stdout)["pods"] is None


def test_watching_shows_each_change_once_and_what_is_wrong(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [
        at_rest(),  # asked before the screen is taken
        at_rest(),
        at_rest(),
        UnreachableError("cannot reach the cluster"),
        mid_step(),
        mid_step(),
        rolled_back(),
        KeyboardInterrupt(),
    ]
    result = run("status", "fraud", "--watch")
    assert result.exit_code == 0
    assert [line.split()[-1] for line in result.stdout.splitlines() if line.startswith("fraud")] == [
        "Healthy",
        "Healthy",
        "Progressing",
        "Degraded",
    ]
    assert result.stdout.count("cannot reach the cluster") == 1


def test_watching_ends_with_what_is_watched(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [at_rest(), at_rest(), NotFoundError('"fraud" not found')]
    result = run("status", "fraud", "--watch")
    assert result.exit_code == 3
    assert result.stderr == 'Error: "fraud" not found\n'


@pytest.mark.parametrize("command", NAMED)
def test_what_is_not_there_exits_with_3(run: Run, command: str) -> None:
    result = run(command, "nothing")
    assert result.exit_code == 3
    assert result.stderr == 'Error: modeldeployments.rollway.dev "nothing" not found\n'


@pytest.mark.parametrize("command", NAMED)
def test_a_cluster_that_cannot_be_reached_exits_with_5(run: Run, cluster: FakeCluster, command: str) -> None:
    cluster.forbids["connect"] = UnreachableError("cannot reach it")
    result = run(command, "fraud", "--context", "broken")
    assert result.exit_code == 5
    assert result.stderr == "Error: cannot reach it\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("words", [["--no-such-option"], ["a", "b", "--output=xml"]])
def test_wrong_usage_exits_with_2(run: Run, command: str, words: list[str]) -> None:
    result = run(command, *words)
    assert result.exit_code == 2
    assert "Usage: kubectl rollway" in result.stderr


@pytest.mark.parametrize("words", [["--help"], ["-h"], *([command, "-h"] for command in COMMANDS)])
def test_every_command_explains_itself(run: Run, words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 0
    assert "Usage: kubectl rollway" in result.stdout


def test_who_interrupts_gets_no_words(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [KeyboardInterrupt()]
    result = run("wait", "fraud")
    assert (result.exit_code, result.output) == (130, "")


def test_an_error_is_one_line_that_no_terminal_obeys(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [UnreachableError("\x1b[31mbad\r\x07")]
    assert run("resolve", "fraud").stderr == "Error: [31mbad\n"


def test_a_command_imports_only_what_it_needs() -> None:
    """Each word that is completed starts a process: what is slow to import stays out of it."""
    heavy = {"httpx", "rich", "jsonschema", "yaml", "kubernetes"}
    program = (
        "import sys; from kubectl_rollway.completion import completions; completions(['wait', 'x', '--for', '']);"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
