"""What goes into a pod and what comes out of it: settings, MLmodel, the termination message, patience."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rollway_serving import termination
from rollway_serving.errors import FetchFailed, ModelLoadFailed, NotAModel, SettingsError
from rollway_serving.fetch.download import Patience
from rollway_serving.fetch.sources import Transient
from rollway_serving.lifecycle import Lifecycle, Phase
from rollway_serving.mlmodel import InputExample, MLmodel, plain_name
from rollway_serving.settings import Batching, Limits, Places, Settings

SETTINGS: dict[str, Any] = {
    "name": "fraud",
    "namespace": "team-a",
    "revision": "fraud-7c9f12ab",
    "modelName": "fraud detector",
    "version": "3",
    "timeoutSeconds": 30.0,
    "smokeTest": {"source": "InputExample"},
    "warmup": {"requests": 20},
    "drainSeconds": 5.0,
    "httpPort": 8080,
    "grpcPort": 8081,
    "metricsPort": 8082,
}
MLMODEL = """
flavors:
  python_function: {loader_module: mlflow.sklearn, predict_fn: predict_proba}
  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle}
mlflow_version: 3.17.2
saved_input_example_info: {artifact_path: input_example.json, serving_input_path: serving_input_example.json}
signature:
  inputs: '[{"name": "a", "type": "long"}]'
  outputs: null
"""


def test_settings_are_read_from_the_operators_file(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    settings = Settings.load(tmp_path / "settings.json")
    assert (settings.name, settings.model_name, settings.version) == ("fraud", "fraud detector", "3")
    assert (settings.smoke_test, settings.warmup_requests, settings.drain_seconds) == (
        "InputExample",
        20,
        5.0,
    )


def test_a_revision_made_before_there_were_limits_has_the_defaults() -> None:
    settings = Settings.parse(SETTINGS)
    assert settings.limits == Limits(1 << 20, 5.0, 10.0, 16, 64)
    assert (settings.tolerance, settings.max_latency_seconds) == (1e-6, None)


def test_limits_and_the_smoke_test_are_read_from_the_settings() -> None:
    changed = SETTINGS | {
        "limits": {"maxBodyBytes": 4096, "headerSeconds": 1, "maxConcurrency": 2, "maxQueue": 0},
        "smokeTest": {"source": "ConfigMap", "tolerance": 0, "maxLatencySeconds": 0.25},
    }
    settings = Settings.parse(changed)
    assert settings.limits == Limits(4096, 1.0, 10.0, 2, 0)
    assert (settings.smoke_test, settings.tolerance, settings.max_latency_seconds) == ("ConfigMap", 0, 0.25)


def test_batching_is_off_where_the_settings_do_not_name_it() -> None:
    assert Settings.parse(SETTINGS).batching is None
    assert Settings.parse(SETTINGS | {"batching": None}).batching is None
    assert Settings.parse(SETTINGS | {"batching": {}}).batching == Batching(32, 0.0)
    chosen = SETTINGS | {"batching": {"maxBatchSize": 8, "maxLatencySeconds": 0.005}}
    assert Settings.parse(chosen).batching == Batching(8, 0.005)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batching.maxBatchSize", 0),
        ("batching.maxBatchSize", "32"),
        ("batching.maxLatencySeconds", -0.001),
        ("batching.maxLatencySeconds", "5ms"),
        ("batching.maxLatencySeconds", 30.5),
        ("limits.maxBodyBytes", 0),
        ("limits.headerSeconds", "5"),
        ("limits.bodySeconds", True),
        ("limits.maxConcurrency", 0),
        ("limits.maxQueue", -1),
        ("smokeTest.tolerance", -1e-9),
        ("smokeTest.maxLatencySeconds", "1s"),
        ("smokeTest.source", "Golden"),
    ],
)
def test_a_wrong_limit_is_named(field: str, value: object) -> None:
    group, _, name = field.partition(".")
    changed = SETTINGS | {group: {"source": "InputExample"} | {name: value}}
    with pytest.raises(SettingsError, match=f"^{field}: expected .*, got {value!r}"):
        Settings.parse(changed)


@pytest.mark.parametrize("group", ["limits", "batching"])
def test_a_group_that_is_no_object_is_an_error(group: str) -> None:
    with pytest.raises(SettingsError, match=group):
        Settings.parse(SETTINGS | {group: 5})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("version", 3),
        ("revision", "a\r\nb"),
        ("timeoutSeconds", "30"),
        ("timeoutSeconds", 0),
        ("drainSeconds", True),
        ("drainSeconds", -1),
        ("smokeTest.source", "Golden"),
        ("warmup.requests", None),
        ("httpPort", 0),
        ("metricsPort", 70000),
        ("grpcPort", 8081.0),
    ],
)
def test_a_setting_that_is_wrong_or_missing_is_named(field: str, value: Any) -> None:
    outer, _, inner = field.partition(".")
    wrong, missing = copy.deepcopy(SETTINGS), copy.deepcopy(SETTINGS)
    if inner:
        wrong[outer][inner] = value
        del missing[outer][inner]
    else:
        wrong[outer] = value
        del missing[outer]
    for raw in (wrong, missing):
        with pytest.raises(SettingsError, match=f"^{field}: "):
            Settings.parse(raw)


def test_the_places_have_the_pods_paths_as_defaults() -> None:
    assert Places.from_environment({}) == Places(
        Path("/etc/rollway"), Path("/mnt/models"), Path("/dev/termination-log")
    )


def test_mlmodel_is_read_as_data() -> None:
    mlmodel = MLmodel.parse(MLMODEL.encode())
    assert (mlmodel.flavor, mlmodel.predict_method) == ("sklearn", "predict_proba")
    assert mlmodel.signature == {"inputs": [{"name": "a", "type": "long"}]}
    assert mlmodel.input_example == InputExample("serving_input_example.json", is_request=True, kind="")
    assert mlmodel.mlflow_version == "3.17.2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "flavors: {}",
        "flavors: {sklearn: 1}",
        "flavors: [",
        "flavors: !!python/object/apply:os.system [id]",
        MLMODEL.replace("'[{", "'{"),
        MLMODEL.replace("serving_input_example.json", "../../etc/passwd"),
        "flavors: {a: {}}\nx: &x [1]\ny: [" + ", ".join(["*x"] * 21) + "]",
        "flavors: " + "[" * 5000,
        "flavors: !!bool maybe",
        "flavors: !!timestamp now",
        "flavors: !!int ''",
        "flavors: {? [a]: 1}",
        MLMODEL.replace("""'[{"name": "a", "type": "long"}]'""", "'" + "[" * 100_000 + "'"),
    ],
    ids=range(15),
)
def test_an_mlmodel_that_cannot_be_used_is_not_a_model(text: str) -> None:
    with pytest.raises(NotAModel):
        MLmodel.parse(text.encode())


@pytest.mark.parametrize("name", [None, "", ".", "..", "../a", "a/b", "/a", "a\\b", ".env", "a b", "a\n"])
def test_a_file_that_mlmodel_names_must_be_in_its_own_folder(name: Any) -> None:
    with pytest.raises(NotAModel):
        plain_name(name, "field")


def test_a_failure_leaves_its_reason_and_one_sentence(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    termination.write_failure(log, ModelLoadFailed("it\nbroke \x1b[31m" + "\u00e9" * 5000))
    message = json.loads(log.read_text())
    assert message["reason"] == "ModelLoadFailed"
    assert message["message"].isprintable()
    assert len(log.read_bytes()) <= 4096
    termination.clear(log)
    assert log.read_text() == ""


def test_a_server_is_ready_only_between_its_gates_and_sigterm() -> None:
    life = Lifecycle()
    assert (life.accepts_traffic, life.serves) == (False, False)
    life.told_to_stop()
    assert life.phase is Phase.LOADING
    life.became_ready()
    assert (life.accepts_traffic, life.serves, life.is_draining) == (True, True, False)
    life.told_to_stop()
    assert (life.accepts_traffic, life.serves, life.is_draining) == (False, True, True)
    life.became_ready()
    assert not life.accepts_traffic


async def test_patience_ends_when_nothing_arrived_for_its_time() -> None:
    now = 0.0
    attempts = 0

    async def fail() -> None:
        nonlocal now, attempts
        attempts += 1
        now += 20.0
        raise Transient("no route")

    with pytest.raises(FetchFailed, match="reading x failed for 60 s, last: no route"):
        await Patience(60.0, clock=lambda: now).attempt("reading x", fail)
    assert attempts == 3


async def test_patience_starts_again_with_each_byte() -> None:
    now = 0.0
    patience = Patience(60.0, clock=lambda: now)
    now = 59.0
    patience.progressed()
    now = 100.0
    assert patience.left() == 19.0
