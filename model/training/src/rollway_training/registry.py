"""Everything that talks to MLflow: log a run, register its model, promote a version, list versions."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from rollway_training import evaluation

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from rollway_training.samples import Data, Sample

_MODEL = "model"
_EXAMPLE_ROWS = 5
_DIGEST_LENGTH = 36  # the longest that MLflow stores beside a dataset; the whole one is a tag
_CARRIED_TAGS: tuple[str, ...] = ("sample", "task", "data_digest")
_PINNED = ("scikit-learn", "numpy", "scipy", "pandas")


class RegistryError(Exception):
    """MLflow holds something that the command cannot go on with; the message says what."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run and what it logged."""

    run_id: str
    experiment: str
    artifact_location: str
    model_uri: str
    data_digest: str
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version took the alias, with the numbers that decided."""

    promoted: bool
    model: str
    version: str
    champion: str | None
    alias: str
    metric: str
    value: float
    champion_value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Job:
    """What to train and how to store it."""

    sample: Sample
    model: Any
    parameters: dict[str, Any]
    serialization: str
    predict_fn: str


def use_experiment(name: str, artifact_location: str | None) -> mlflow.entities.Experiment:
    """Select the experiment; one that is missing is made, with its artifacts at ``artifact_location``."""
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        mlflow.create_experiment(name, artifact_location=artifact_location)
    elif artifact_location and found.artifact_location.rstrip("/") != artifact_location.rstrip("/"):
        raise RegistryError(
            f"experiment {name!r} keeps its artifacts at {found.artifact_location}, "
            f"not at {artifact_location}: name another experiment"
        )
    return mlflow.set_experiment(name)


def train(job: Job, experiment: str, artifact_location: str | None) -> Trained:
    """Fit the model and log everything that is needed to judge it, to load it and to train it again."""
    used = use_experiment(experiment, artifact_location)
    data = job.sample.load()
    with mlflow.start_run() as run:
        model = job.model.fit(data.train_rows, data.train_target)
        task = job.sample.task
        metrics = evaluation.metrics(task, model, data.train_rows, data.train_target, "train_")
        metrics |= evaluation.metrics(task, model, data.held_out_rows, data.held_out_target, "held_out_")
        mlflow.log_params(job.parameters | {"sample": job.sample.name})
        mlflow.log_metrics(metrics)
        mlflow.set_tags({"sample": job.sample.name, "task": task, "data_digest": data.digest})
        _log_data(job.sample, data)
        for name, figure in evaluation.figures(task, model, data.held_out_rows, data.held_out_target).items():
            mlflow.log_figure(figure, f"figures/{name}")
        logged = _log_model(job, model, data)
    return Trained(
        run_id=run.info.run_id,
        experiment=experiment,
        artifact_location=used.artifact_location,
        model_uri=logged,
        data_digest=data.digest,
        metrics=metrics,
    )


def register(name: str, run_id: str | None, experiment: str) -> ModelVersion:
    """Make the run's model, by default that of the experiment's newest run, the next version of ``name``."""
    run = mlflow.get_run(run_id or _newest_run(experiment))
    missing = [key for key in _CARRIED_TAGS if key not in run.data.tags]
    if missing:
        raise RegistryError(f"run {run.info.run_id} has no tag {missing[0]!r}: this program did not make it")
    tags = {key: run.data.tags[key] for key in _CARRIED_TAGS}
    metric = evaluation.DECIDING_METRIC[tags["task"]]
    tags[metric] = repr(run.data.metrics[metric])
    if run.outputs is None or not run.outputs.model_outputs:
        raise RegistryError(f"run {run.info.run_id} has logged no model")
    return mlflow.register_model(f"models:/{run.outputs.model_outputs[0].model_id}", name, tags=tags)


def promote(name: str, version: str | None, alias: str) -> Verdict:
    """Point the alias at the version unless the present champion is better on the same held-out rows."""
    client = mlflow.MlflowClient()
    candidate = client.get_model_version(name, version) if version else _newest_version(name)
    champion = _version_by_alias(client, name, alias)
    verdict = judge(candidate, champion, alias)
    if verdict.promoted:
        client.set_registered_model_alias(name, alias, candidate.version)
    status = "approved" if verdict.promoted else "rejected"
    client.set_model_version_tag(name, candidate.version, "validation_status", status)
    return verdict


def judge(candidate: ModelVersion, champion: ModelVersion | None, alias: str) -> Verdict:
    """Decide by the numbers of both on the same held-out rows; equal is not worse."""
    metric = evaluation.DECIDING_METRIC[candidate.tags["task"]]
    value = float(candidate.tags[metric])
    best = None
    if champion is None:
        promoted, reason = True, f"{metric} {value:.6g}; nothing holds the alias yet"
    elif champion.tags.get("data_digest") != candidate.tags["data_digest"]:
        promoted = False
        reason = f"version {champion.version} was judged on other rows, so the numbers cannot be compared"
    else:
        best = float(champion.tags[metric])
        promoted = value <= best
        relation = "not worse than" if promoted else "worse than"
        reason = f"{metric} {value:.6g} is {relation} version {champion.version}'s {best:.6g}"
    return Verdict(
        promoted=promoted,
        model=candidate.name,
        version=str(candidate.version),
        champion=str(champion.version) if champion else None,
        alias=alias,
        metric=metric,
        value=value,
        champion_value=best,
        reason=reason,
    )


def versions(name: str | None) -> list[ModelVersion]:
    """Return every version of one model, or of all, oldest first, each with its aliases."""
    client = mlflow.MlflowClient()
    names = [name] if name else [model.name for model in client.search_registered_models()]
    found = [version for each in names for version in client.search_model_versions(f"name='{each}'")]
    found.sort(key=lambda version: (version.name, int(version.version)))
    # A search leaves the aliases out; a version asked for by name has them.
    return [client.get_model_version(version.name, version.version) for version in found]


def expected_outputs(name: str, version: str, sample: str) -> list[float]:
    """Return what a version answers for the held-out rows, row after row, computed in this process."""
    from rollway_training.samples import held_out_rows  # noqa: PLC0415

    model = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
    return [float(value) for value in model.predict(held_out_rows(sample)).ravel()]


def _log_data(sample: Sample, data: Data) -> None:
    digest = data.digest.removeprefix("sha256:")[:_DIGEST_LENGTH]
    for context, rows, target in (
        ("train", data.train_rows, data.train_target),
        ("held_out", data.held_out_rows, data.held_out_target),
    ):
        dataset = from_pandas(
            rows.assign(target=target.astype("float64")),
            targets="target",
            name=f"{sample.name}-{context}",
            digest=digest,
        )
        mlflow.log_input(dataset, context=context)


def _log_model(job: Job, model: Any, data: Data) -> str:
    predict = getattr(model, job.predict_fn)
    storage = "skops" if job.serialization == "skops" else "cloudpickle"
    info = mlflow.sklearn.log_model(
        model,
        name=_MODEL,
        serialization_format=job.serialization,
        signature=infer_signature(data.train_rows, predict(data.train_rows)),
        input_example=data.train_rows.head(_EXAMPLE_ROWS),
        pip_requirements=[f"{package}=={installed_version(package)}" for package in (*_PINNED, storage)],
        pyfunc_predict_fn=job.predict_fn,
    )
    return str(info.model_uri)


def _newest_run(experiment: str) -> str:
    runs = mlflow.MlflowClient().search_runs(
        [_experiment_id(experiment)],
        filter_string="attributes.status = 'FINISHED'",
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    if not runs:
        raise RegistryError(f"experiment {experiment!r} has no finished run")
    return str(runs[0].info.run_id)


def _experiment_id(name: str) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        raise RegistryError(f"there is no experiment {name!r}")
    return str(found.experiment_id)


def _newest_version(name: str) -> ModelVersion:
    found = versions(name)
    if not found:
        raise RegistryError(f"model {name!r} has no version")
    return found[-1]


def _version_by_alias(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE"):
            return None
        raise
