"""Which revision version and spec ask for: an existing one with the same inputs, or a new one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rollway_operator import manifests, obstacles
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import (
    ArtifactSource,
    Failure,
    ModelVersion,
    Observed,
    Platform,
    Resolution,
    StoredRevision,
)

KNOWN_VERSION_MAY_CHANGE_SHAPE = frozenset(
    {"Resolved", "RegistryUnreachable", "AliasNotFound", "VersionNotFound", "ModelNotFound", "TagMissing"}
)
"""With these answers a changed spec still rolls out, for the version known before; other answers stop that."""


def choose_target(
    deployment: ModelDeployment, resolution: Resolution, observed: Observed, platform: Platform
) -> tuple[StoredRevision | None, Failure | None]:
    """Find the revision that version and spec ask for, or render it; and what stands in the way, if anything does.

    While the registry gives no confirmed answer, the version known before stays wanted (rollout.md rule 2).
    """
    known = _known(deployment, observed)
    if resolution.version and resolution.source and resolution.confirmed:
        version, source = resolution.version, resolution.source
    elif known and _still_asks_for(deployment, known):
        if resolution.reason not in KNOWN_VERSION_MAY_CHANGE_SHAPE or resolution.held_back == known.version:
            return known, None
        version, source = as_resolved(known)
    else:
        return known, None
    return render(deployment, version, source, observed, platform, before=known)


def render(
    deployment: ModelDeployment,
    version: ModelVersion,
    source: ArtifactSource,
    observed: Observed,
    platform: Platform,
    *,
    before: StoredRevision | None,
    kept: Mapping[str, Any] | None = None,
) -> tuple[StoredRevision | None, Failure | None]:
    """Find or make the revision of a version with the present spec; `kept` are inputs that come from elsewhere.

    Where something stands in the way, what was wanted `before` stays.
    """
    if obstacle := obstacles.find(deployment, observed, platform):
        return before, obstacle
    runtime = platform.runtimes[deployment.spec.predictor.runtime]
    chosen = {**manifests.inputs(deployment, version, source, runtime, observed.golden), **(kept or {})}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    # The revision wanted before comes first, then the newest: two may differ in nothing but their image.
    candidates = sorted(observed.revisions, key=lambda r: (r is not before, -r.number))
    matching = next((r for r in candidates if manifests.same_inputs(r.inputs, chosen)), None)
    return matching or manifests.new_revision(deployment, chosen, runtime, observed.revisions), None


def _known(deployment: ModelDeployment, observed: Observed) -> StoredRevision | None:
    """Give the revision wanted last, or the newest of its version where that one was never stored."""
    before = deployment.status.model
    if before is None:
        return None
    alike = (revision for revision in observed.revisions if revision.version == before.target_version)
    return max(alike, key=lambda found: (found.name == before.target_revision, found.number), default=None)


def _still_asks_for(deployment: ModelDeployment, known: StoredRevision) -> bool:
    """The spec names the alias that was followed, or the very version that is known."""
    before, model = deployment.status.model, deployment.spec.model
    return model.version == known.version if model.version else bool(before and before.alias == model.alias)


def as_resolved(known: StoredRevision) -> tuple[ModelVersion, ArtifactSource]:
    """Read a version and its source back from a revision made for it."""
    inputs = known.inputs
    return (
        ModelVersion(inputs["model"], known.version, inputs["runId"], inputs["uri"]),
        manifests.source_of(inputs["artifacts"]),
    )


def target_since(deployment: ModelDeployment, target: StoredRevision | None, now: datetime) -> datetime:
    """Say since when this revision has been wanted."""
    before = deployment.status.model
    if before and before.target_since and target and before.target_revision == target.name:
        return before.target_since
    return now
