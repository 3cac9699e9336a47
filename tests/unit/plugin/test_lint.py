"""What is found wrong with a manifest, on which line, and what is left to an API server."""

from pathlib import Path
from textwrap import dedent

import pytest

from kubectl_rollway import lint
from kubectl_rollway.cluster import Complaint
from kubectl_rollway.errors import UnreachableError
from rollway_testing.fake_cluster import FakeCluster

from .conftest import Run

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
HEAD = "apiVersion: rollway.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: fraud}\n"


def found(text: str) -> list[str]:
    return [str(problem) for one in lint.check(text) for problem in one.problems]


def of_spec(spec: str) -> list[str]:
    return found(f"{HEAD}spec:\n" + "\n".join(f"  {line}" for line in dedent(spec).strip().splitlines()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_no_problem(path: Path) -> None:
    checked = list(lint.check(path.read_text()))
    assert [one.problems for one in checked if one.ours] == [()] * len(checked)


@pytest.mark.parametrize("name", ["rollway.dev_modeldeployments.yaml", "rollway.dev_modelregistries.yaml"])
def test_the_definitions_of_the_package_are_those_of_the_repository(name: str) -> None:
    shipped = ROOT / "operator/plugin/src/kubectl_rollway/crds" / name
    assert shipped.read_text() == (ROOT / "crds" / name).read_text(), "make generate"


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ("model: {name: fraud, alias: champion}", []),
        ('model: {name: fraud, version: "12"}', []),
        (
            "model: {name: fraud, version: 12}",
            ['5: spec.model.version: must be a text, not 12; write "12"'],
        ),
        ("model: {name: fraud}", ["5: spec.model: set exactly one of alias and version"]),
        (
            'model:\n  name: fraud\n  alias: a\n  version: "1"',
            ["5: spec.model: set exactly one of alias and version"],
        ),
        ("model: {alias: champion}", ["5: spec.model: name is missing"]),
        (
            "model: {name: f, alias: latest}",
            ["5: spec.model.alias: 'latest' is reserved by MLflow; set an alias of your own or a version"],
        ),
        (
            "model: {name: f, alias: v3}",
            [
                """5: spec.model.alias: reserved by MLflow for versions; use version: "3" instead of alias: v3"""
            ],
        ),
        ("model: {name: f..x, alias: a}", ["5: spec.model.name: must not contain '..'"]),
        (
            'model: {name: f, alias: "a\\n"}',
            ["5: spec.model.alias: must be letters, digits, '-' and '_'"],
        ),
        (
            "model: {name: f, alias: a}\npredictor:\n  replica: 2",
            ["7: spec.predictor.replica: there is no such field; did you mean replicas?"],
        ),
        (
            "model: {name: f, alias: a}\npredictor:\n  replicas: 0\n  runtime: 3",
            [
                "7: spec.predictor.replicas: must be at least 1, not 0",
                '8: spec.predictor.runtime: must be a text, not 3; write "3"',
            ],
        ),
        (
            "model: {name: f, alias: a}\npredictor: {timeout: 48h}",
            ["6: spec.predictor.timeout: must be at most 24h"],
        ),
        (
            "model: {name: f, alias: a}\npredictor: {timeout: 1d}",
            [
                "6: spec.predictor.timeout: must be a whole number above 0 with its unit, ms, s, m or h, such as 30s",
            ],
        ),
        (
            "model: {name: f, alias: a}\npredictor:\n  resources:\n    requests:\n      cpu: 1\n      memory: lots",
            ["10: spec.predictor.resources.requests.memory: must be a quantity such as 500m or 2Gi"],
        ),
        (
            "model: {name: f, alias: a}\npredictor:\n  resources: {requests: {cpu: [1]}}",
            ["7: spec.predictor.resources.requests.cpu: must be a text or a whole number, not a list"],
        ),
        (
            "model: {name: f, alias: a}\nstrategy: {}",
            ["6: spec.strategy: set exactly one of"],
        ),
        (
            "model: {name: f, alias: a}\nnetworkPolicy: {from: []}",
            ["6: spec.networkPolicy.from: must have at least 1 entries"],
        ),
        ("model: {name: f, alias: a}\npaused: maybe", ["6: spec.paused: must be true or false, not 'maybe'"]),
        ("model: {name: f, alias: a}\npredictor:", []),  # nothing is what the default replaces
        ("model: {name: f, alias: a}\nstrategy:", ["6: spec.strategy: must be a mapping, not nothing"]),
        ("model: []", ["5: spec.model: must be a mapping, not a list"]),
        (
            "model: {name: f, alias: a}\npreTraffic: {smokeTest: {source: Nothing}}",
            [
                "6: spec.preTraffic.smokeTest.source: must be one of InputExample, ConfigMap, Disabled, not 'Nothing'",
            ],
        ),
        ("model: {name: f, alias: a, name: g}", ["5: spec.model.name: is written twice"]),
        (
            "model: {name: f, alias: a, digest: 2026-01-01}",
            [
                "5: spec.model.digest: must be sha256: and 64 lower-case hex digits, as status.stable.digest shows it"
            ],
        ),
    ],
)
def test_a_fault_is_named_with_its_line(spec: str, problems: list[str]) -> None:
    told = of_spec(spec)
    assert len(told) == len(problems), told
    assert all(one.startswith(wanted) for one, wanted in zip(told, problems, strict=True)), told


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "1: no YAML"),
        ("a: b\n---\n{", "3: no YAML"),
        ("- a", "1: this is no object of Kubernetes"),
        ("just text", "1: this is no object of Kubernetes"),
        (
            "apiVersion: rollway.dev/v1beta1\nkind: ModelDeployment",
            "1: apiVersion: this package knows rollway.dev/v1alpha1",
        ),
        (
            "apiVersion: rollway.dev/v1alpha1\nkind: ModelDeploymen",
            "2: kind: rollway.dev has the kinds ModelDeployment and ModelRegistry",
        ),
        (
            "apiVersion: rollway.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a}",
            "1: spec is missing",
        ),
        (
            HEAD.replace("fraud", "Fraud") + "spec: {model: {name: f, alias: a}}",
            "1: metadata.name must be at most 40",
        ),
        (
            HEAD.replace("{name: fraud}", "{}") + "spec: {model: {name: f, alias: a}}",
            "3: metadata.name: is missing",
        ),
        (
            HEAD.replace("{name: fraud}", "") + "spec: {model: {name: f, alias: a}}",
            "3: metadata: must be a mapping",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: rollway.dev/v1alpha1\n  kind: Other",
            "5: kind: rollway.dev has",
        ),
        ("!!python/object/apply:os.system [ls]", "1: no YAML"),
        ("&a [*a]", "1: this is no object of Kubernetes"),
        ("? [a, b]\n: c", "1: no YAML"),
        ("\x00", "1: no YAML"),
    ],
)
def test_what_cannot_be_applied_at_all_is_named(text: str, problem: str) -> None:
    told = found(text)
    assert told
    assert told[0].startswith(problem), told


@pytest.mark.parametrize(
    "text",
    ["", "# nothing", "---\n---\n", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}", "a: b"],
)
def test_what_is_not_rollways_is_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "written", ["spec.model.alias", "spec.a[0].b", "spec.x[3]", "metadata.labels['a.b/c']"]
)
def test_a_path_is_read_as_it_is_written(written: str) -> None:
    assert lint.where(lint.path(written)) == written


def test_two_entries_of_one_key_are_a_fault() -> None:
    text = (
        "apiVersion: rollway.dev/v1alpha1\nkind: ModelRegistry\nmetadata: {name: default}\nspec:\n"
        "  mlflow: {trackingURI: http://mlflow:5000}\n  artifacts:\n"
        "  - prefix: s3://models/\n  - prefix: s3://models/\n"
    )
    assert found(text) == ["8: spec.artifacts[1]: another entry has the same prefix"]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_counts_what_it_found(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"{HEAD}spec: {{model: {{name: f, alias: a}}}}\n---\napiVersion: v1\nkind: Secret\n")
    bad.write_text(f"{HEAD}spec: {{model: {{name: f, alias: a}}, stratgy: {{}}}}\n")
    result = run("lint", str(good))
    assert (result.exit_code, result.stdout) == (0, "1 object: no problem found\n")
    assert "Secret/None is not of a kind of Rollway's: not checked" in result.stderr
    assert "need an API server: --server" in result.stderr
    result = run("lint", str(good), str(bad))
    assert result.exit_code == 1
    assert result.stdout == f"{bad}:4: spec.stratgy: there is no such field; did you mean strategy?\n"
    assert result.stderr.endswith("Error: 1 problem in 2 objects\n")


def test_the_command_reads_standard_input(run: Run) -> None:
    result = run("lint", "-", given=f"{HEAD}spec: {{}}\n")
    assert (result.exit_code, result.stdout) == (1, "-:4: spec: model is missing\n")


def test_a_file_that_is_not_there_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert run("lint", str(tmp_path / "no.yaml")).exit_code == 2
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert run("lint", str(tmp_path / "binary")).exit_code == 2
    assert run("lint").exit_code == 2


def test_an_api_server_is_asked_only_about_what_holds_here(
    run: Run, cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.against = [
        Complaint("spec.model", "model name is immutable"),
        Complaint("", "denied by a policy"),
    ]
    file = tmp_path / "two.yaml"
    file.write_text(f"{HEAD}spec:\n  model: {{name: f, alias: a}}\n---\n{HEAD}spec: {{}}\n")
    result = run("lint", "--server", str(file))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{file}:1: denied by a policy",
        f"{file}:5: spec.model: model name is immutable",
        f"{file}:10: spec: model is missing",
    ]
    assert len(cluster.asked) == 1


def test_an_api_server_that_is_away_is_told(run: Run, cluster: FakeCluster) -> None:
    cluster.forbids["complaints"] = UnreachableError("cannot reach it")
    assert run("lint", "--server", str(EXAMPLES[0])).exit_code == 5
