"""Status that was lost or forged, rebuilt from the Service's selector and the ControllerRevisions' annotations.

Lost: status names no stable though the Service exists, or no target though revisions do. Forged: its stable has no
ControllerRevision of ours, or a digest other than the annotation's. Whatever is consistent is believed.

What was asked for by annotation counts as handled, and acts no more. Where what is found leaves a doubt, traffic stays
as it is and nothing goes on until a person has looked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rollway_operator import closures, steps, traffic, verbs
from rollway_operator.api.v1alpha1 import CanaryStatus, ModelDeployment, ModelDeploymentStatus, RevisionStatus
from rollway_operator.domain import Event, Observed, StoredRevision
from rollway_operator.labels import GROUP, REVISION, STABLE

STATE_REBUILT: Final = "StateRebuilt"


@dataclass(frozen=True)
class Rebuilt:
    """A ModelDeployment with a status that may be believed, and what to tell of it."""

    deployment: ModelDeployment
    event: Event


def rebuilt(
    deployment: ModelDeployment, observed: Observed, rendered: StoredRevision | None
) -> Rebuilt | None:
    """Rebuild the status if it is lost or forged; `rendered` is known, too, even if it is not stored."""
    known = {
        revision.name: revision for revision in (*((rendered,) if rendered else ()), *observed.revisions)
    }
    why = _lost(deployment, observed, known) or _forged(deployment.status, known)
    if why is None:
        return None
    before, annotations = deployment.status, deployment.metadata.annotations
    stable = known.get(serving_revision(deployment, observed) or "")
    doubt = _doubt(deployment, observed, stable)
    status = before.model_copy(
        update={
            "model": before.model
            and before.model.model_copy(update={"closed": None, "approved_revision": None, "restart": None}),
            "stable": _role(stable),
            "canary": _canary(deployment, observed, _candidate(observed, known, stable, rendered), stable),
            "last_handled": verbs.present(annotations),
            "paused_by_verb": doubt is not None,
            "rebuilt": doubt,
        }
    )
    serves = f"v{stable.version} ({stable.name}) serves" if stable else "no revision is known to serve"
    message = f"{why}; rebuilt from the Service and the ControllerRevisions: {serves}"
    return Rebuilt(
        deployment.model_copy(update={"status": status}),
        Event("Warning", STATE_REBUILT, f"{message}; {doubt}" if doubt else message),
    )


def serving_revision(deployment: ModelDeployment, observed: Observed) -> str | None:
    """Read which revision the Service points at now, as stable where it points at a canary, too."""
    live = observed.objects.get(("Service", deployment.metadata.name))
    if live is None:
        return None
    alone: str | None = live["spec"].get("selector", {}).get(REVISION)
    shared: str | None = live["metadata"].get("annotations", {}).get(STABLE)
    return alone or shared


def shares_service(deployment: ModelDeployment, observed: Observed) -> bool:
    """Tell whether the Service points at the pods of stable and canary alike."""
    live = observed.objects.get(("Service", deployment.metadata.name))
    selector = live["spec"].get("selector", {}) if live else {}
    return bool(selector) and REVISION not in selector


def _lost(deployment: ModelDeployment, observed: Observed, known: Mapping[str, StoredRevision]) -> str | None:
    status = deployment.status
    under_way = status.rebuilt or (status.canary and status.canary.revision in known)
    pointed = serving_revision(deployment, observed)
    exists = ("Service", deployment.metadata.name) in observed.objects
    if status.stable is None and exists and (pointed in known or not under_way):
        return "status.stable was lost"
    # The first status is written before the first ControllerRevision.
    if status.model is None and observed.revisions:
        return "the status was lost"
    return None


def _forged(status: ModelDeploymentStatus, known: Mapping[str, StoredRevision]) -> str | None:
    if status.stable and status.stable.revision not in known:
        return f"status.stable named {status.stable.revision[:63]}, which has no ControllerRevision"
    for field, role in (("stable", status.stable), ("canary", status.canary)):
        pinned = known[role.revision].digest if role and role.revision in known else None
        if role and role.digest and pinned and role.digest != pinned:
            return f"status.{field}.digest was not the one of its ControllerRevision"
    return None


def _doubt(deployment: ModelDeployment, observed: Observed, stable: StoredRevision | None) -> str | None:
    """Say what cannot be known from the cluster, if anything that matters."""
    name = deployment.metadata.name
    if stable is None and ("Service", name) in observed.objects:
        pointed = serving_revision(deployment, observed)
        named = f"revision {pointed}, which has no ControllerRevision" if pointed else "no revision"
        return f"the Service points at {named}: see that it serves what it should"
    if any(verb.name == "pause" and verb.revision for verb in verbs.new(deployment.metadata.annotations, {})):
        return f"{GROUP}/pause is set, and whether it was resumed is not known"
    return None


def _candidate(
    observed: Observed,
    known: Mapping[str, StoredRevision],
    stable: StoredRevision | None,
    rendered: StoredRevision | None,
) -> StoredRevision | None:
    """Find who was on its way: who has a weight, or whose pods run: the target's, a person's choice, the only new."""
    weighted = set(_weights(observed)) & known.keys() - ({stable.name} if stable else set())
    if len(weighted) == 1:
        return known[weighted.pop()]
    running = {
        name
        for (kind, name), live in observed.objects.items()
        if kind == "Deployment" and live["spec"].get("replicas", 1) and name in known
    }
    running -= {stable.name} if stable else set()
    if rendered and rendered.name in running and not known[rendered.name].closed:
        return known[rendered.name]
    instead = closures.follow(known, stable, stable) if stable else None
    if instead and instead.name in running:
        return instead
    new = [known[name] for name in running if not known[name].promoted and not known[name].closed]
    return new[0] if len(new) == 1 else None


def _weights(observed: Observed) -> Mapping[str, int]:
    """Read the weights of a live route; empty where there is none."""
    live = (item for (kind, _), item in observed.objects.items() if kind in ("HTTPRoute", "GRPCRoute"))
    return next((traffic.weights_of(route) for route in live), {})


def _canary(
    deployment: ModelDeployment,
    observed: Observed,
    candidate: StoredRevision | None,
    stable: StoredRevision | None,
) -> CanaryStatus | None:
    """Say how far the candidate had come: traffic stays as it is, and the clock of its step starts again."""
    role = _role(candidate)
    if candidate is None or role is None:
        return None
    served = _count(observed, stable.name) if stable else 0
    weight = _weights(observed).get(candidate.name, 0)
    if shares_service(deployment, observed):
        weight = _weight_of(deployment, _count(observed, candidate.name), served)
    if not weight:
        return CanaryStatus(**role.model_dump())
    return CanaryStatus(
        **role.model_dump(),
        weight=weight,
        weight_set_at=observed.now,
        weight_since=observed.now,
        stable_replicas=served,
    )


def _weight_of(deployment: ModelDeployment, canary: int, stable: int) -> int:
    """Find the weight that so many pods were made for."""
    weights = [step.weight for step in steps.laid_down(deployment) if step.weight]
    fitting = (w for w in weights if traffic.canary_replicas(w, stable, ratio=True) >= canary)
    return next(fitting, weights[-1] if weights else 0)


def _count(observed: Observed, revision: str) -> int:
    live = observed.objects.get(("Deployment", revision), {})
    return int(live.get("spec", {}).get("replicas", 0))


def _role(revision: StoredRevision | None) -> RevisionStatus | None:
    if revision is None:
        return None
    return RevisionStatus(revision=revision.name, version=revision.version, digest=revision.digest)
