"""Provides the volumes of the local cluster's default StorageClass: a stand-in for a storage driver, for tests only.

A volume is a folder below the cluster's state folder, made when a claim asks for it and deleted once it is released.
kind brings a class of its own (`standard`).
"""

import shutil
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollway_cluster.api import Api, ApiError, Mirror
from rollway_cluster.layout import Layout
from rollway_cluster.manifests import PROVISIONER, STORAGE_CLASS

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CONFLICT, NOT_FOUND = 409, 404


def main() -> None:
    """Follow claims and volumes, and make and delete folders for them."""
    state, name, number = sys.argv[1:]
    layout, changed = Layout(Path(state), name, int(number)), threading.Event()
    client = Api(layout)
    claims, volumes = Mirror(client, CLAIMS, changed), Mirror(client, VOLUMES, changed)
    claims.synced.wait()
    volumes.synced.wait()
    while True:
        changed.clear()
        for claim in waiting(claims.objects()):
            _provide(client, layout, claim)
        for volume in released(volumes.objects()):
            _delete(client, layout, volume)
        changed.wait()


def waiting(claims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims of our class that have no volume."""
    return [
        claim
        for claim in claims
        if claim["spec"].get("storageClassName") == STORAGE_CLASS
        and claim.get("status", {}).get("phase") == "Pending"
        and not claim["spec"].get("volumeName")
        and "deletionTimestamp" not in claim["metadata"]
    ]


def released(volumes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our volumes whose claim is gone, and that are not to be kept."""
    return [
        volume
        for volume in volumes
        if volume["spec"].get("storageClassName") == STORAGE_CLASS
        and volume.get("status", {}).get("phase") == "Released"
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        and "deletionTimestamp" not in volume["metadata"]
    ]


def volume_for(claim: dict[str, Any], node: str, folder: Path) -> dict[str, Any]:
    """The volume that a claim is bound to; its name follows from the claim, so a repetition finds it made."""
    name = f"pvc-{claim['metadata']['uid']}"
    on_this_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"],
                "name": claim["metadata"]["name"],
                "uid": claim["metadata"]["uid"],
            },
            "local": {"path": str(folder / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_this_node]}]}},
        },
    }


def _provide(client: Api, layout: Layout, claim: dict[str, Any]) -> None:
    volume = volume_for(claim, layout.node, layout.data / "volumes")
    folder = Path(volume["spec"]["local"]["path"])
    folder.mkdir(parents=True, exist_ok=True)
    # Pods run as whatever user they like; mkdir's mode is subject to the umask.
    folder.chmod(0o777)
    try:
        client.request("POST", VOLUMES, volume)
    except ApiError as error:
        if error.status != CONFLICT:
            raise
    else:
        print(f"made {folder}", flush=True)


def _delete(client: Api, layout: Layout, volume: dict[str, Any]) -> None:
    name = volume["metadata"]["name"]
    shutil.rmtree(layout.data / "volumes" / name, ignore_errors=True)
    try:
        client.request("DELETE", f"{VOLUMES}/{name}")
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
    print(f"deleted {name}", flush=True)


if __name__ == "__main__":
    main()
