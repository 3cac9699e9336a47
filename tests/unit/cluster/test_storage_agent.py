"""A claim of the local class gets a volume, and a released volume of it goes."""

from pathlib import Path
from typing import Any

import pytest

from rollway_cluster import storage_agent

CLAIM: dict[str, Any] = {
    "metadata": {"namespace": "mlflow", "name": "data", "uid": "1234"},
    "spec": {
        "storageClassName": "local",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
    "status": {"phase": "Pending"},
}
VOLUME: dict[str, Any] = {
    "metadata": {"name": "pvc-1234"},
    "spec": {"storageClassName": "local", "persistentVolumeReclaimPolicy": "Delete"},
    "status": {"phase": "Released"},
}


def test_a_volume_is_made_for_one_claim_alone() -> None:
    volume = storage_agent.volume_for(CLAIM, "node", Path("/volumes"))
    assert volume["metadata"]["name"] == "pvc-1234"
    assert volume["spec"]["claimRef"]["uid"] == "1234"
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}
    assert volume["spec"]["local"] == {"path": "/volumes/pvc-1234"}


def test_a_waiting_claim_of_the_class_is_served() -> None:
    assert storage_agent.waiting([CLAIM]) == [CLAIM]


@pytest.mark.parametrize(
    "other",
    [
        {"spec": CLAIM["spec"] | {"storageClassName": "standard"}},
        {"spec": CLAIM["spec"] | {"volumeName": "pvc-1234"}},
        {"status": {"phase": "Bound"}},
        {"metadata": CLAIM["metadata"] | {"deletionTimestamp": "now"}},
    ],
)
def test_no_other_claim_is(other: dict[str, Any]) -> None:
    assert storage_agent.waiting([CLAIM | other]) == []


def test_a_released_volume_is_deleted() -> None:
    assert storage_agent.released([VOLUME]) == [VOLUME]


@pytest.mark.parametrize(
    "other",
    [
        {"status": {"phase": "Bound"}},
        {"spec": VOLUME["spec"] | {"persistentVolumeReclaimPolicy": "Retain"}},
        {"spec": VOLUME["spec"] | {"storageClassName": "standard"}},
    ],
)
def test_no_other_volume_is(other: dict[str, Any]) -> None:
    assert storage_agent.released([VOLUME | other]) == []
