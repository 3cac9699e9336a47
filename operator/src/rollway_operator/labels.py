"""Every label, annotation, field manager and name rule of Rollway, once; docs/api.md describes them."""

import re

GROUP = "rollway.dev"
FIELD_MANAGER = "rollway-operator"

MODEL_DEPLOYMENT = f"{GROUP}/model-deployment"
REVISION = f"{GROUP}/revision"
ROLE = f"{GROUP}/role"

MODEL_NAME = f"{GROUP}/model-name"
MODEL_VERSION = f"{GROUP}/model-version"
RUN_ID = f"{GROUP}/run-id"
DIGEST = f"{GROUP}/digest"
OUTCOME = f"{GROUP}/outcome"
OUTCOME_MESSAGE = f"{GROUP}/outcome-message"
CLOSED = f"{GROUP}/closed"
SERVED = f"{GROUP}/served"
STABLE = f"{GROUP}/stable"

MANAGED_BY = "app.kubernetes.io/managed-by"
VERSION = "app.kubernetes.io/version"

KEY = re.compile(
    r"(?:(?=.{1,253}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
"""What the API server takes as a label's key."""
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
"""What it takes as a label's value."""

_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]+")
_LABEL_VALUE_LENGTH = 63


def label_value(raw: str) -> str:
    """Turn any text into a valid label value: forbidden runs become one dash, cut at 63 characters."""
    return _FORBIDDEN.sub("-", raw)[:_LABEL_VALUE_LENGTH].strip("._-")


def command(verb: str, namespace: str, name: str, revision: str) -> str:
    """Give the command that says a verb about a revision of ModelDeployment `name`."""
    return f"kubectl annotate mdep {name} --namespace {namespace} --overwrite {GROUP}/{verb}={revision}"


def selector(name: str, revision: str | None = None) -> dict[str, str]:
    """Select the pods of ModelDeployment `name`, or of one revision of it."""
    return {MODEL_DEPLOYMENT: name} | ({REVISION: revision} if revision else {})


def common(name: str, revision: str | None = None) -> dict[str, str]:
    """Give the labels that every child of ModelDeployment `name` carries."""
    return {
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "predictor",
        "app.kubernetes.io/part-of": "rollway",
        MANAGED_BY: FIELD_MANAGER,
    } | selector(name, revision)


def of_pods(name: str, revision: str, runtime: str, version: str) -> dict[str, str]:
    """Give the labels of a model pod, with those that Seldon's and KServe's dashboards read."""
    return common(name, revision) | {
        "app.kubernetes.io/name": label_value(runtime),
        VERSION: label_value(version),
        "seldon-deployment-id": name,
        "seldon-app": name,
        "seldon.io/model": "true",
        "serving.kserve.io/inferenceservice": name,
    }
