"""What kstatus makes of a custom resource: the rules by which Flux, Helm 4 and others tell whether it is settled.

They are those of sigs.k8s.io/cli-utils, pkg/kstatus, for kinds that it does not know by name, in its order:

    1. being deleted                               Terminating
    2. a change that the controller has not seen   InProgress
    3. Reconciling or Stalled is True              InProgress or Failed; of both, the one that the list has first
    4. Ready                                       Current where it is True, else InProgress
    5. otherwise, and where nothing is said        Current
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Kstatus(StrEnum):
    """What a resource can be."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


_ABNORMAL = {"Reconciling": Kstatus.IN_PROGRESS, "Stalled": Kstatus.FAILED}
_READY = {"True": Kstatus.CURRENT, "False": Kstatus.IN_PROGRESS, "Unknown": Kstatus.IN_PROGRESS}


def compute(body: Mapping[str, Any]) -> Kstatus:
    """Judge a resource by what the API server has of it."""
    metadata, status = body["metadata"], body.get("status", {})
    if metadata.get("deletionTimestamp"):
        return Kstatus.TERMINATING
    # A status that names no generation is believed.
    seen = status.get("observedGeneration", metadata.get("generation"))
    if "generation" in metadata and seen != metadata["generation"]:
        return Kstatus.IN_PROGRESS
    conditions = status.get("conditions", ())
    abnormal = (
        _ABNORMAL[one["type"]] for one in conditions if one["type"] in _ABNORMAL and one["status"] == "True"
    )
    ready = (
        _READY[one["status"]] for one in conditions if one["type"] == "Ready" and one["status"] in _READY
    )
    return next(abnormal, None) or next(ready, Kstatus.CURRENT)
