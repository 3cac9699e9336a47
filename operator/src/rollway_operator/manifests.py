"""Desired objects, one function a kind; and a revision's inputs with what is rendered from them, once.

A revision's inputs hold only what its author chose: a field left out stays out, so that a newer operator's default
never makes an old revision look different. Defaults enter at rendering, and the result is stored beside the inputs.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rollway_operator import labels, network
from rollway_operator.api.v1alpha1 import API_VERSION, ModelDeployment, seconds
from rollway_operator.domain import (
    ArtifactSource,
    Closing,
    ModelVersion,
    Object,
    Platform,
    Runtime,
    StoredRevision,
    timestamp,
)

Json = dict[str, Any]

DEFAULT_TIMEOUT: Final = "30s"
DEFAULT_SMOKE_TEST: Final = "InputExample"
DEFAULT_WARMUP_REQUESTS: Final = 20
DEFAULT_ENVIRONMENT_POLICY: Final = "Warn"

USER: Final = 65532
MODEL_PATH: Final = "/mnt/models"
REVISION_PATH: Final = "/etc/rollway"
CA_PATH: Final = "/etc/rollway-ca"
CA_KEY: Final = "ca.crt"
TOKEN_PATH: Final = "/var/run/secrets/sts.amazonaws.com/serviceaccount"  # noqa: S105 - a path
TOKEN_AUDIENCE: Final = "sts.amazonaws.com"  # noqa: S105 - a name
TOKEN_SECONDS: Final = 3600
GOLDEN_KEY: Final = "golden.json"

NOT_COMPARED: Final = frozenset({"image", "artifacts", "restart"})
"""A new runtime image, a new registry entry or an earlier restart alone makes no new revision (docs/concepts.md)."""

OF_THE_VERSION: Final = frozenset({"model", "version", "runId", "uri", "artifacts", "digest"})
"""Inputs that belong to the model's version; the others are what the spec says of its pods."""


# ------------------------------------------------------------------------------------------------- revisions


def inputs(
    deployment: ModelDeployment,
    version: ModelVersion,
    source: ArtifactSource,
    runtime: Runtime,
    golden: str | None = None,
) -> Json:
    """Gather everything that the pods of a revision see; absent is what nobody chose."""
    spec = deployment.spec
    gates = spec.pre_traffic
    test = gates and gates.smoke_test
    chosen: Json = {
        "model": version.name,
        "version": version.version,
        "runId": version.run_id,
        "uri": version.uri,
        "runtime": runtime.name,
        "image": runtime.image,
        "artifacts": {
            key: value
            for key, field in _ARTIFACTS.items()
            if (value := getattr(source, field)) not in (None, ())
        },
        "digest": spec.model.digest or None,
        "resources": spec.predictor.resources
        and spec.predictor.resources.model_dump(by_alias=True, exclude_none=True),
        "timeout": spec.predictor.timeout,
        "nodeSelector": dict(spec.predictor.node_selector or {}),
        "tolerations": [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True)
            for toleration in spec.predictor.tolerations
        ],
        "batching": spec.predictor.batching
        and {
            "maxBatchSize": spec.predictor.batching.max_batch_size,
            "maxLatencySeconds": _as_stored(seconds(spec.predictor.batching.max_latency)),
        },
        "environmentPolicy": spec.predictor.environment_policy,
        "smokeTest": test and test.source,
        "smokeTestMaxLatency": test and test.max_latency,
        "smokeTestTolerance": test and test.tolerance,
        "golden": golden if test and test.source == "ConfigMap" else None,
        "warmupRequests": gates and gates.warmup and gates.warmup.requests,
    }
    return {key: value for key, value in chosen.items() if value not in (None, {}, [])}


_ARTIFACTS: Final = {
    "prefix": "prefix",
    "endpoint": "endpoint",
    "region": "region",
    "credentialsSecretName": "credentials_secret_name",
    "trackingURI": "tracking_uri",
    "roleARN": "role_arn",
    "stsEndpoint": "sts_endpoint",
    "caBundleName": "ca_bundle_name",
    "egress": "egress",
}
"""What of an ArtifactSource stands in a revision's inputs, and under which key."""


def source_of(artifacts: Mapping[str, Any]) -> ArtifactSource:
    """Read an ArtifactSource back from a revision's inputs."""
    found = {field: artifacts[key] for key, field in _ARTIFACTS.items() if key in artifacts}
    return ArtifactSource(**found | {"egress": tuple(found.get("egress", ()))})


def same_inputs(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Compare two revisions' inputs field by field, without those that alone make no new revision."""
    return all(stored.get(key) == wanted.get(key) for key in (stored.keys() | wanted.keys()) - NOT_COMPARED)


def same_shape(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Compare what two revisions' pods are, whichever version they serve."""
    keys = (stored.keys() | wanted.keys()) - NOT_COMPARED - OF_THE_VERSION
    return all(stored.get(key) == wanted.get(key) for key in keys)


def revision_name(name: str, chosen: Mapping[str, Any], taken: Iterable[str]) -> str:
    """Name a new revision `<name>-<8 hex>`; the hash only names, a taken name is salted until it is free."""
    used = set(taken)
    for salt in range(len(used) + 1):
        text = json.dumps([chosen, salt] if salt else chosen, sort_keys=True)
        candidate = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        if candidate not in used:
            return candidate
    raise AssertionError("one of len(used) + 1 different names is free")


def new_revision(
    deployment: ModelDeployment,
    chosen: Mapping[str, Any],
    runtime: Runtime,
    existing: tuple[StoredRevision, ...],
) -> StoredRevision:
    """Render a revision from its inputs: the only place where today's code shapes a pod."""
    metadata = deployment.metadata
    name = revision_name(metadata.name, chosen, (revision.name for revision in existing))
    timeout = seconds(chosen.get("timeout", DEFAULT_TIMEOUT))
    smoke_test: Json = {"source": chosen.get("smokeTest", DEFAULT_SMOKE_TEST)}
    if "smokeTestMaxLatency" in chosen:
        smoke_test["maxLatencySeconds"] = seconds(chosen["smokeTestMaxLatency"])
    if "smokeTestTolerance" in chosen:
        smoke_test["tolerance"] = float(chosen["smokeTestTolerance"])
    settings = {
        "name": metadata.name,
        "namespace": metadata.namespace,
        "revision": name,
        "modelName": chosen["model"],
        "version": chosen["version"],
        "timeoutSeconds": timeout,
        "smokeTest": smoke_test,
        "warmup": {"requests": chosen.get("warmupRequests", DEFAULT_WARMUP_REQUESTS)},
        "drainSeconds": runtime.drain_seconds,
        "httpPort": runtime.http_port,
        "grpcPort": runtime.grpc_port,
        "metricsPort": runtime.metrics_port,
    }
    if runtime.limits:
        settings["limits"] = dict(runtime.limits)
    if "batching" in chosen:
        settings["batching"] = chosen["batching"]
    return StoredRevision(
        name=name,
        number=max((revision.number for revision in existing), default=0) + 1,
        inputs=chosen,
        template=pod_template(metadata.name, name, chosen, runtime, timeout),
        settings=_as_stored(settings),
        digest=chosen.get("digest"),
    )


def _as_stored(value: Any) -> Any:
    """Write numbers as the API server gives them back, or the next pass would find another text in the ConfigMap."""
    if isinstance(value, Mapping):
        return {key: _as_stored(below) for key, below in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def pod_template(
    name: str, revision: str, chosen: Mapping[str, Any], runtime: Runtime, timeout: float
) -> Json:
    """Render the pods of a revision: fetch verifies the artifacts, then the server serves them, without credentials."""
    return {
        "metadata": {
            "labels": labels.of_pods(name, revision, runtime.name, chosen["version"]),
            "annotations": {labels.MODEL_NAME: chosen["model"], labels.MODEL_VERSION: chosen["version"]},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": runtime.pre_stop_seconds
            + int(runtime.drain_seconds + timeout)
            + 5,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"nodeSelector": chosen["nodeSelector"]} if "nodeSelector" in chosen else {}),
            **({"tolerations": chosen["tolerations"]} if "tolerations" in chosen else {}),
            **(
                {"imagePullSecrets": [{"name": secret} for secret in runtime.image_pull_secrets]}
                if runtime.image_pull_secrets
                else {}
            ),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": labels.selector(name, revision)},
                }
            ],
            "initContainers": [fetch_container(revision, chosen, runtime)],
            "containers": [server_container(name, chosen, runtime)],
            "volumes": [
                {"name": "model", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "revision", "configMap": {"name": revision, "optional": False}},
                *(volume for volume, _ in _of_fetch_alone(chosen["artifacts"])),
            ],
        },
    }


def _of_fetch_alone(artifacts: Mapping[str, Any]) -> Iterator[tuple[Json, Json]]:
    """Give each volume that `fetch` mounts and the server never does, with its mount."""
    if "roleARN" in artifacts:
        token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
        yield (
            {"name": "aws-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
            {"name": "aws-token", "mountPath": TOKEN_PATH, "readOnly": True},
        )
    if "caBundleName" in artifacts:
        # Optional, since fetch says what is missing, and a pod that waits for a volume says nothing.
        source = {
            "name": artifacts["caBundleName"],
            "items": [{"key": CA_KEY, "path": CA_KEY}],
            "optional": True,
        }
        yield (
            {"name": "ca-bundle", "configMap": source},
            {"name": "ca-bundle", "mountPath": CA_PATH, "readOnly": True},
        )


def fetch_container(revision: str, chosen: Mapping[str, Any], runtime: Runtime) -> Json:
    """Render the init container that downloads and verifies: it has the credentials and runs no model code."""
    artifacts = chosen["artifacts"]
    own = list(_of_fetch_alone(artifacts))
    values = {
        "ROLLWAY_MODEL_URI": chosen["uri"],
        "ROLLWAY_ARTIFACT_PREFIX": artifacts["prefix"],
        "ROLLWAY_ARTIFACT_ENDPOINT": artifacts.get("endpoint"),
        "ROLLWAY_ARTIFACT_REGION": artifacts.get("region"),
        "ROLLWAY_TRACKING_URI": artifacts.get("trackingURI"),
        "ROLLWAY_ENVIRONMENT_POLICY": chosen.get("environmentPolicy", DEFAULT_ENVIRONMENT_POLICY),
    }
    if "roleARN" in artifacts:
        values |= {
            "AWS_ROLE_ARN": artifacts["roleARN"],
            "AWS_ROLE_SESSION_NAME": revision,
            "AWS_WEB_IDENTITY_TOKEN_FILE": f"{TOKEN_PATH}/token",
            "ROLLWAY_STS_ENDPOINT": artifacts.get("stsEndpoint"),
        }
    if "caBundleName" in artifacts:
        values["ROLLWAY_CA_BUNDLE"] = f"{CA_PATH}/{CA_KEY}"
    env: list[Json] = [{"name": key, "value": value} for key, value in values.items() if value]
    if secret := artifacts.get("credentialsSecretName"):
        keys = (
            {"AWS_ACCESS_KEY_ID": "accessKeyId", "AWS_SECRET_ACCESS_KEY": "secretAccessKey"}
            if artifacts["prefix"].startswith("s3://")
            else {
                "ROLLWAY_TRACKING_USERNAME": "username",
                "ROLLWAY_TRACKING_PASSWORD": "password",
                "ROLLWAY_TRACKING_TOKEN": "token",
            }
        )
        # A key missing for S3 must stop the pod with Kubernetes' own words; a tracking server takes either form.
        optional = not artifacts["prefix"].startswith("s3://")
        env += [
            {
                "name": variable,
                "valueFrom": {
                    "secretKeyRef": {"name": secret, "key": key} | ({"optional": True} if optional else {})
                },
            }
            for variable, key in keys.items()
        ]
    return {
        "name": "fetch",
        "image": chosen["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": list(runtime.fetch_command),
        "env": env,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": _restricted(),
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_PATH},
            {"name": "revision", "mountPath": REVISION_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            *(mount for _, mount in own),
        ],
    }


def server_container(name: str, chosen: Mapping[str, Any], runtime: Runtime) -> Json:
    """Render the inference server: probes on the model's own readiness, liveness on the process alone."""
    ready = {"path": runtime.readiness_path.format(name=name), "port": "http"}
    return {
        "name": "server",
        "image": chosen["image"],
        "imagePullPolicy": "IfNotPresent",
        **({"command": list(runtime.server_command)} if runtime.server_command else {}),
        "ports": [
            {"name": "http", "containerPort": runtime.http_port},
            {"name": "grpc", "containerPort": runtime.grpc_port},
            {"name": "metrics", "containerPort": runtime.metrics_port},
        ],
        # Loading may be slow; the operator's progress deadline, not the kubelet, ends a load that hangs.
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3600},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            "httpGet": {"path": runtime.liveness_path.format(name=name), "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        **(
            {"lifecycle": {"preStop": {"sleep": {"seconds": runtime.pre_stop_seconds}}}}
            if runtime.pre_stop_seconds
            else {}
        ),
        **({"resources": chosen["resources"]} if "resources" in chosen else {}),
        "securityContext": _restricted(),
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_PATH, "readOnly": True},
            {"name": "revision", "mountPath": REVISION_PATH, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }


def _restricted() -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# --------------------------------------------------------------------------------------------------- objects


def metadata_of(
    deployment: ModelDeployment, name: str, revision: str | None = None, role: str | None = None
) -> Json:
    """Give a child its name, our labels, and its ModelDeployment as the owner."""
    return {
        "name": name,
        "namespace": deployment.metadata.namespace,
        "labels": labels.common(deployment.metadata.name, revision) | ({labels.ROLE: role} if role else {}),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": deployment.kind,
                "name": deployment.metadata.name,
                "uid": deployment.metadata.uid,
                "controller": True,
            }
        ],
    }


def controller_revision(deployment: ModelDeployment, revision: StoredRevision) -> Object:
    """Store a revision: its inputs and what was rendered from them; its fate stands in annotations."""
    fate = {
        labels.DIGEST: revision.digest,
        labels.OUTCOME: revision.outcome,
        labels.OUTCOME_MESSAGE: revision.outcome_message,
        labels.CLOSED: closing_text(revision.closing) if revision.closed and revision.closing else None,
        labels.SERVED: "true" if revision.promoted else None,
    }
    told = {
        labels.MODEL_NAME: revision.inputs["model"],
        labels.MODEL_VERSION: revision.version,
        labels.RUN_ID: revision.inputs["runId"],
    } | {key: value for key, value in fate.items() if value}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata_of(deployment, revision.name, revision.name) | {"annotations": told},
        "revision": revision.number,
        "data": {
            "inputs": dict(revision.inputs),
            "template": dict(revision.template),
            "settings": dict(revision.settings),
        },
    }


def closing_text(closing: Closing) -> str:
    """Write what is known of a closed revision as its annotation has it."""
    told = {
        "since": closing.since and timestamp(closing.since),
        "rejected": closing.rejected,
        "instead": closing.instead,
        "under": closing.under,
        "weight": closing.weight,
    }
    return json.dumps({key: value for key, value in told.items() if value is not None}, sort_keys=True)


def closing_of(text: str) -> Closing:
    """Read that annotation; what it does not say, or what somebody made of it, counts as rejected."""
    try:
        told = json.loads(text)
        since = datetime.fromisoformat(told["since"]) if "since" in told else None
        return Closing(
            since=since if since and since.tzinfo else None,
            rejected=told.get("rejected") is not False,
            instead=_text(told.get("instead")),
            under=_text(told.get("under")),
            weight=weight if isinstance(weight := told.get("weight"), int) else None,
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Closing()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def config_map(deployment: ModelDeployment, revision: StoredRevision) -> Object:
    """Give a revision's pods their settings and the digest that fetch must find ("" until the first pod told it)."""
    golden = revision.inputs.get("golden")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata_of(deployment, revision.name, revision.name),
        "data": {
            "digest": revision.digest or "",
            "settings.json": json.dumps(dict(revision.settings), sort_keys=True, indent=1),
            **({GOLDEN_KEY: golden} if golden is not None else {}),
        },
    }


def workload(deployment: ModelDeployment, revision: StoredRevision, role: str) -> Object:
    """Run a revision's pods; the count is not here: it goes through /scale, so that an autoscaler may own it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata_of(deployment, revision.name, revision.name, role),
        "spec": {
            "selector": {"matchLabels": labels.selector(deployment.metadata.name, revision.name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 1,
            "template": dict(revision.template),
        },
    }


def network_policy(
    deployment: ModelDeployment, revisions: Sequence[StoredRevision], platform: Platform
) -> Object:
    """Let the pods of these revisions be reached by those who may, and reach what they fetch from."""
    name = deployment.metadata.name
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(deployment, name),
        "spec": {
            "podSelector": {"matchLabels": labels.selector(name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": network.ingress(
                deployment.spec.network_policy, (revision.settings for revision in revisions), platform
            ),
            "egress": network.egress(revision.inputs["artifacts"] for revision in revisions),
        },
    }


def pod_monitor(deployment: ModelDeployment, platform: Platform) -> Object:
    """Lead a Prometheus to the pods of every revision, with what they are as labels that they cannot set.

    A model is its author's code, and so is what its pods answer a scrape: more than these limits, and Prometheus takes
    nothing of it. The widest server has some 3,000 samples of at most 20 labels (docs/adr/0027).
    """
    name = deployment.metadata.name
    metadata = metadata_of(deployment, name)
    asked = {**(platform.monitor_labels or {}), **(deployment.spec.pod_monitor.labels or {})}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata | {"labels": {**asked, **metadata["labels"]}},
        "spec": {
            "selector": {"matchLabels": labels.selector(name)},
            "podTargetLabels": [labels.MODEL_DEPLOYMENT, labels.REVISION, labels.VERSION],
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "honorLabels": False}],
            "sampleLimit": 10_000,
            "labelLimit": 40,
            "labelNameLengthLimit": 128,
            "labelValueLengthLimit": 512,
            "bodySizeLimit": "4MB",
        },
    }


def service(deployment: ModelDeployment, name: str, revision: StoredRevision) -> Object:
    """Point a Service of this name at the pods of one revision."""
    ports = {"http": revision.settings["httpPort"], "grpc": revision.settings["grpcPort"]}
    own = revision.name if name == revision.name else None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(deployment, name, own),
        "spec": {
            "selector": labels.selector(deployment.metadata.name, revision.name),
            "ports": [
                {
                    "name": "http",
                    "port": ports["http"],
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": "http",
                },
                {
                    "name": "grpc",
                    "port": ports["grpc"],
                    "targetPort": "grpc",
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }
