"""Train, register, promote and list the sample model.

JSON lines on standard output for programs, sentences on standard error for people. Exit codes: 0 done,
1 failed, 2 wrong arguments, 3 not promoted because the champion is better.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from rollway_training import estimators, registry
from rollway_training.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion

_REFUSED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if complaint := _complaint(options):
        parser.error(complaint)
    # MLflow prints links on standard output, which belongs to the JSON lines.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    mlflow.set_tracking_uri(options.tracking_uri)
    try:
        code: int = options.command(options)
    except (registry.RegistryError, MlflowException) as error:
        _tell(str(error))
        return 1
    return code


def _train(options: argparse.Namespace) -> int:
    job = _job(options)
    _tell(f"training {options.estimator} on {job.sample.name}: {job.parameters}")
    trained = registry.train(job, options.experiment, options.artifact_location)
    for name, value in sorted(trained.metrics.items()):
        _tell(f"  {name:22} {value:.6g}")
    _tell(f"run {trained.run_id} in experiment {trained.experiment} ({trained.artifact_location})")
    _say("trained", asdict(trained))
    if options.register:
        _register_run(options.register, trained.run_id, options.experiment)
    return 0


def _register(options: argparse.Namespace) -> int:
    _register_run(options.model, options.run_id, options.experiment)
    return 0


def _register_run(model: str, run_id: str | None, experiment: str) -> None:
    version = registry.register(model, run_id, experiment)
    _tell(f"registered run {version.run_id} as {version.name} version {version.version}")
    _say("registered", _described(version))


def _promote(options: argparse.Namespace) -> int:
    verdict = registry.promote(options.model, options.version, options.alias)
    outcome = "promoted" if verdict.promoted else "not promoted"
    _tell(f"{verdict.model} version {verdict.version} {outcome} to {verdict.alias!r}: {verdict.reason}")
    _say("promoted" if verdict.promoted else "refused", asdict(verdict))
    return 0 if verdict.promoted else _REFUSED


def _list(options: argparse.Namespace) -> int:
    for version in registry.versions(options.model):
        described = _described(version)
        aliases = ", ".join(described["aliases"]) or "-"
        _tell(f"{version.name}  version {version.version}  aliases {aliases}  source {version.source}")
        _say("version", described)
    return 0


def _job(options: argparse.Namespace) -> registry.Job:
    sample = SAMPLES[options.sample]
    parameters: dict[str, Any]
    if options.estimator == "forest":
        seed = 0 if options.seed is None else options.seed
        model, parameters = estimators.forest(sample.task, seed), {"seed": seed}
    else:
        strength = 1.0 if options.regularization is None else options.regularization
        model, parameters = estimators.linear(sample.task, strength), {"regularization": strength}
    parameters |= {"estimator": options.estimator, "predict_fn": options.predict_fn}
    return registry.Job(sample, model, parameters, options.serialization, options.predict_fn)


def _complaint(options: argparse.Namespace) -> str | None:
    """Say which flags do not fit together, if any."""
    if not options.tracking_uri:
        return "name the tracking server by --tracking-uri or MLFLOW_TRACKING_URI"
    if options.command is not _train:
        return None
    forest = options.estimator == "forest"
    classifies = SAMPLES[options.sample].task == "classification"
    rules = (
        (
            options.predict_fn == "predict_proba" and not classifies,
            "--predict-fn predict_proba needs a classifier: --sample breast-cancer",
        ),
        (
            not forest and options.seed is not None,
            "--seed belongs to --estimator forest: a linear model has no chance in it",
        ),
        (
            forest and options.regularization is not None,
            "--regularization belongs to --estimator linear",
        ),
        (
            forest and options.serialization == "skops",
            "--estimator forest needs --serialization cloudpickle",
        ),
    )
    return next((complaint for broken, complaint in rules if broken), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rollway_training", description=__doc__)
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    commands = parser.add_subparsers(required=True, metavar="{train,register,promote,list}")

    train = commands.add_parser("train", help="fit a model and log it")
    train.set_defaults(command=_train)
    train.add_argument("--sample", choices=sorted(SAMPLES), default="diabetes")
    train.add_argument("--estimator", choices=("linear", "forest"), default="linear")
    train.add_argument("--regularization", type=_positive, help="strength, of a linear model (default 1)")
    train.add_argument("--seed", type=int, help="of a forest (default 0)")
    train.add_argument("--predict-fn", choices=("predict", "predict_proba"), default="predict")
    train.add_argument("--serialization", choices=("skops", "cloudpickle"), default="skops")
    train.add_argument("--experiment", default="rollway")
    train.add_argument("--artifact-location", help="of a new experiment: s3://… or mlflow-artifacts:/…")
    train.add_argument("--register", metavar="MODEL", help="register the model too, under this name")

    register = commands.add_parser("register", help="make a run's model the next version")
    register.set_defaults(command=_register)
    register.add_argument("--model", required=True)
    register.add_argument("--run-id", help="default: the experiment's newest finished run")
    register.add_argument("--experiment", default="rollway")

    promote = commands.add_parser("promote", help="move an alias, if the version is not worse")
    promote.set_defaults(command=_promote)
    promote.add_argument("--model", required=True)
    promote.add_argument("--version", help="default: the newest")
    promote.add_argument("--alias", default="champion")

    listing = commands.add_parser("list", help="show versions and aliases")
    listing.set_defaults(command=_list)
    listing.add_argument("--model", help="default: every model")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _described(version: ModelVersion) -> dict[str, Any]:
    return {
        "model": version.name,
        "version": str(version.version),
        "aliases": sorted(version.aliases or []),
        "run_id": version.run_id,
        "source": version.source,
        "tags": dict(version.tags or {}),
    }


def _say(event: str, content: dict[str, Any]) -> None:
    print(json.dumps({"event": event} | content), flush=True)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
