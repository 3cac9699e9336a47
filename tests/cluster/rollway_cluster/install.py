"""Turns an empty cluster into one with MLflow, an S3 store and Rollway; what is there already is left or upgraded."""

import json
import os
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rollway_cluster import containers, prometheus, traefik
from rollway_cluster.client import MADE_BY, Client, Object
from rollway_cluster.cluster import Cluster
from rollway_cluster.definitions import made_here
from rollway_cluster.errors import ClusterError
from rollway_cluster.images import REPOSITORY, build_images
from rollway_cluster.prometheus import Monitoring
from rollway_cluster.traefik import Gateway

IMAGES = ("operator", "mlserver", "seldon", "mlflow", "training", "seaweedfs")
RUNTIMES = ("mlserver", "seldon")
MLFLOW_NAMESPACE = "mlflow"
SYSTEM_NAMESPACE = "rollway-system"
MODELS_BUCKET = "models"
STORE_SECRET = "s3-credentials"
MODELS_SECRET = "models-s3"
OPERATOR = "rollway-operator"
_PROGRAMS = (traefik.NAME, *prometheus.IMAGES)
"""Images of a program and nothing else; the others are built by Dockerfiles."""
_LOADED_AT_A_TIME = 2
_DEFINITIONS = ("modeldeployments.rollway.dev", "modelregistries.rollway.dev")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Credentials:
    """A key of the S3 store."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Installation:
    """Where everything is, as pods reach it, and what opens it."""

    images: Mapping[str, str]
    credentials: Credentials
    gateway: Gateway | None = None
    tracking_uri: str = f"http://mlflow.{MLFLOW_NAMESPACE}.svc:5000"
    s3_endpoint: str = f"http://s3.{MLFLOW_NAMESPACE}.svc:8333"
    region: str = "us-east-1"


def client_of(cluster: Cluster) -> Client:
    """The command lines of a cluster that is up."""
    return Client(cluster.kubectl(), cluster.helm(), cluster.kubeconfig_path, cluster.context)


def load_images(cluster: Cluster, names: Sequence[str] = IMAGES, say: Say = print) -> dict[str, str]:
    """Build what changed, load what the cluster lacks, and return each image's reference by its short name.

    Where ``ROLLWAY_IMAGES`` names a JSON file of references, it is believed: the cluster pulls them by itself.
    """
    if given := os.environ.get("ROLLWAY_IMAGES"):
        pulled: dict[str, str] = json.loads(Path(given).read_text())
        return pulled
    archives = _archives(names, say)
    # Every start from nothing gives this namespace another uid: what was loaded before is not there any more.
    identity = _identity(client_of(cluster))
    record = cluster.state / "data" / "images.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(record.read_text()) if record.exists() else {}
    loaded: dict[str, str] = known.get("loaded", {}) if known.get("cluster") == identity else {}
    missing = {name: archive for name, archive in archives.items() if str(archive) not in loaded}
    with ThreadPoolExecutor(_LOADED_AT_A_TIME) as pool:
        references = pool.map(lambda archive: cluster.load_images([archive]), missing.values())
        for (name, archive), reference in zip(missing.items(), references, strict=True):
            (loaded[str(archive)],) = reference.values()
            say(f"{name}: loaded")
            record.write_text(json.dumps({"cluster": identity, "loaded": loaded}, indent=2))
    return {name: loaded[str(archive)] for name, archive in archives.items()}


def install(
    client: Client,
    images: Mapping[str, str],
    *,
    poll_interval: str = "2s",
    resync_seconds: int = 5,
    values: Mapping[str, Any] | None = None,
    gateway: Gateway | None = None,
    monitoring: Monitoring | None = None,
    say: Say = print,
) -> Installation:
    """Install both charts and the ModelRegistry ``default``; ``values`` are more values of charts/rollway.

    With a gateway, Rollway routes by weights; without one, or installed again without, by the ratio of pods. With
    monitoring, which is there before, the charts bring what makes it scrape them.
    """
    for namespace in (MLFLOW_NAMESPACE, SYSTEM_NAMESPACE):
        make_namespace(client, namespace)
    installation = Installation(images, _credentials(client), gateway)
    say("charts/mlflow")
    client.install("mlflow", REPOSITORY / "charts/mlflow", MLFLOW_NAMESPACE, _mlflow_values(images))
    say("charts/rollway")
    client.install(
        "rollway",
        REPOSITORY / "charts/rollway",
        SYSTEM_NAMESPACE,
        together(
            _rollway_values(images, resync_seconds),
            *(part.values() for part in (gateway, monitoring) if part),
            dict(values or {}),
        ),
    )
    client.apply(registry(poll_interval))
    return installation


def install_gateway(cluster: Cluster, say: Say = print) -> Gateway:
    """Install Traefik, the Gateway API too unless it is there, and two Gateways; wait until they are programmed.

    It is scraped where monitoring was installed before.
    """
    client, (image,) = client_of(cluster), _loaded(cluster, (traefik.NAME,), say)
    say("Traefik and its Gateways")
    make_namespace(client, traefik.NAMESPACE)
    traefik.DEFINITIONS.apply(client)
    client.apply(*traefik.objects(image))
    if client.get("crd", prometheus.POD_MONITORS):
        client.apply(traefik.monitor())
    gateway = Gateway()
    for name in (gateway.http, gateway.grpc):
        client.wait(*(traefik.GATEWAYS, name, gateway.namespace), traefik.programmed, seconds=60.0)
    # After an upgrade both were programmed before.
    client.run("rollout", "status", f"deployment/{traefik.NAME}", f"--namespace={traefik.NAMESPACE}")
    return gateway


def install_monitoring(cluster: Cluster, say: Say = print, *, scrape_interval: str = "5s") -> Monitoring:
    """Install Prometheus Operator, its API too unless it is there, and a Prometheus; wait until it answers.

    To be done before the charts: they bring their monitors only to an API server that knows what these are.
    """
    client, images = client_of(cluster), _loaded(cluster, prometheus.IMAGES, say)
    operator, reloader, server = images
    say("Prometheus Operator and its Prometheus")
    make_namespace(client, prometheus.NAMESPACE)
    prometheus.DEFINITIONS.apply(client)
    client.apply(*prometheus.operator(operator, reloader), *prometheus.prometheus(server, scrape_interval))
    place = f"--namespace={prometheus.NAMESPACE}"
    client.run("rollout", "status", f"deployment/{prometheus.OPERATOR}", place)
    found = (prometheus.PROMETHEUSES, prometheus.NAME, prometheus.NAMESPACE)
    client.wait(*found, prometheus.available, seconds=120.0)
    client.run("wait", *prometheus.ANSWERS, place, "--timeout=30s")
    return Monitoring(client)


def make_namespace(client: Client, name: str) -> None:
    """Make a namespace in which only restricted pods run; one that somebody else made is refused."""
    found = client.get("namespace", name)
    if found and not made_here(found):
        raise ClusterError(
            f"namespace {name} of {client.context} was not made here, and what is in it is not touched\n"
            f"look at: {client.command('get', 'all', f'--namespace={name}')}"
        )
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": MADE_BY | restricted}
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def model_namespace(client: Client, name: str, installation: Installation) -> None:
    """Make a namespace for models, with the Secret by which ``fetch`` reads ``s3://models/``."""
    make_namespace(client, name)
    client.apply(_secret(MODELS_SECRET, name, installation.credentials))


def registry(poll_interval: str) -> Object:
    """The example's ModelRegistry, asked at another interval."""
    found: Object = yaml.safe_load((REPOSITORY / "examples/registry.yaml").read_text())
    found["spec"]["mlflow"]["pollInterval"] = poll_interval
    return found


def uninstall(client: Client, *namespaces: str, say: Say = print) -> None:
    """Remove the namespaces of models, both charts, the Gateways, monitoring, and the definitions made here."""
    if client.get("crd", _DEFINITIONS[0]):
        for namespace in namespaces:
            say(f"ModelDeployments of {namespace}")
            client.run("delete", "modeldeployments", "--all", f"--namespace={namespace}", "--timeout=60s")
    for release, namespace in (("rollway", SYSTEM_NAMESPACE), ("mlflow", MLFLOW_NAMESPACE)):
        if _is_ours(client, namespace):
            say(f"charts/{release}")
            client.uninstall(release, namespace)
    if _is_ours(client, SYSTEM_NAMESPACE):
        _remove_definitions(client, say)
    for namespace in (*namespaces, SYSTEM_NAMESPACE, MLFLOW_NAMESPACE):
        if _is_ours(client, namespace):
            say(f"namespace {namespace}")
            client.delete("namespace", namespace)
    if _is_ours(client, traefik.NAMESPACE):
        say("Traefik and its Gateways")
        _remove_gateways(client, say)
    if _is_ours(client, prometheus.NAMESPACE):
        say("Prometheus Operator and its Prometheus")
        _remove_monitoring(client, say)


def _remove_definitions(client: Client, say: Say) -> None:
    """Remove the ModelRegistry and, unless others use them, the definitions: every object would go with them."""
    if not client.get("crd", _DEFINITIONS[0]):
        return
    client.delete("modelregistry", registry("")["metadata"]["name"])
    kinds = ",".join(_DEFINITIONS)
    if others := client.run("get", kinds, "--all-namespaces", "--no-headers").strip():
        say(f"the definitions stay, since these are not the demo's:\n{others}")
        return
    for definition in _DEFINITIONS:
        client.delete("crd", definition)


def _remove_gateways(client: Client, say: Say) -> None:
    """Remove Traefik and, unless others use it, the Gateway API."""
    client.delete("namespace", traefik.NAMESPACE)
    client.delete("clusterrole,clusterrolebinding", traefik.CLASS)
    if client.get("crd", traefik.GATEWAYS):
        client.delete("gatewayclass", traefik.CLASS)
    traefik.DEFINITIONS.remove(client, say)


def _remove_monitoring(client: Client, say: Say) -> None:
    """Remove Prometheus and its operator and, unless others use it, the operator's API."""
    client.delete("namespace", prometheus.NAMESPACE)
    for name in prometheus.CLUSTER_WIDE:
        client.delete("clusterrole,clusterrolebinding", name)
    prometheus.DEFINITIONS.remove(client, say)


def _is_ours(client: Client, namespace: str) -> bool:
    found = client.get("namespace", namespace)
    return found is not None and made_here(found)


def _loaded(cluster: Cluster, names: Sequence[str], say: Say) -> list[str]:
    """The references of programs' images, in the order of their names."""
    images = load_images(cluster, names, say)
    if absent := [name for name in names if name not in images]:
        raise ClusterError(f"ROLLWAY_IMAGES={os.environ['ROLLWAY_IMAGES']} has no {', no '.join(absent)}")
    return [images[name] for name in names]


def _archives(names: Sequence[str], say: Say) -> dict[str, Path]:
    """Each image's archive: those of Dockerfiles, and those that are a program and nothing else."""
    built = [name for name in names if name not in _PROGRAMS]
    found = build_images(built, say=say) if built else {}
    return found | {name: containers.archive(name, say) for name in names if name in _PROGRAMS}


def _identity(client: Client) -> str:
    found = client.get("namespace", "kube-system")
    if found is None:
        raise ClusterError(f"{client.context} has no namespace kube-system")
    return str(found["metadata"]["uid"])


def _credentials(client: Client) -> Credentials:
    """The S3 store's credentials, made once for a cluster and then read back from it."""
    found = client.get("secret", STORE_SECRET, MLFLOW_NAMESPACE)
    if found:
        access_key, secret_key = (
            b64decode(found["data"][key]).decode() for key in ("accessKeyId", "secretAccessKey")
        )
        return Credentials(access_key, secret_key)
    made = Credentials(f"rollway-{secrets.token_hex(4)}", secrets.token_urlsafe(32))
    client.apply(_secret(STORE_SECRET, MLFLOW_NAMESPACE, made))
    return made


def _secret(name: str, namespace: str, credentials: Credentials) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {
            "accessKeyId": credentials.access_key,
            "secretAccessKey": credentials.secret_key,
        },
    }


def _mlflow_values(images: Mapping[str, str]) -> Object:
    return {
        "image": images["mlflow"],
        "s3": {"enabled": True, "image": images["seaweedfs"], "credentialsSecretName": STORE_SECRET},
    }


def _rollway_values(images: Mapping[str, str], resync_seconds: int) -> Object:
    return {
        "image": images["operator"],
        "runtimes": {name: {"image": images[name]} for name in RUNTIMES},
        "resyncSeconds": resync_seconds,
    }


def together(*values: Object) -> Object:
    """Values of a chart with those below the same key side by side; the last word on a value counts."""
    found: Object = {}
    for part in values:
        for key, value in part.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = together(found[key], value) if both else value
    return found
