"""One ModelDeployment as a tree: who serves, who is on its way, how far, and why.

fraud  team-a  Progressing
canary v13 at 10 %, step 2/4: error-rate holds
├── traffic   bar of shares
├── stable, canary or preview, previous, with their pods
├── steps     the one that is being executed is marked
├── analysis  a line for each metric
├── conditions
└── next      what a person may say now
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kubectl_rollway import objects
from kubectl_rollway.objects import Candidate, Deployment, Metric, Pod, Revision, Share, Stored
from kubectl_rollway.tables import STYLES
from kubectl_rollway.times import since

_BAR: Final = 40
_ABNORMAL: Final = frozenset({"Stalled", "Paused", "Reconciling", "EnvironmentMismatch"})
_MARKS: Final = {"Successful": "✓", "Failed": "✗", "Inconclusive": "?"}


@dataclass(frozen=True)
class Scene:
    """All that is shown of one ModelDeployment."""

    seen: Deployment
    kept: Sequence[Stored] = ()
    pods: Sequence[Pod] | None = None
    """None where pods may not be listed."""


def tree(scene: Scene, now: datetime) -> Tree:
    """Draw it as it is at a moment."""
    seen = scene.seen
    root = Tree(_headline(seen), guide_style="dim")
    root.add(_target(seen, now))
    if scene.pods is None:
        root.add(Text("pods may not be listed", "yellow"))
    if seen.stable is None:
        root.add(_words(("stable", "bold"), "nothing serves yet"))
    else:
        root.add(_bar(shares(seen)))
        _revision(root, scene, _served(seen.stable, now), seen.stable)
    if seen.canary:
        _revision(root, scene, _on_its_way(seen, seen.canary, now), seen.canary)
    before = objects.previous(seen, scene.kept)
    if before and not (seen.canary and seen.canary.name == before):
        version = next((one.version for one in scene.kept if one.name == before), "")
        line = _words(("previous", "bold"), _version(version), before)
        _pods(root.add(line), scene, before)
    _leaving(root, scene, before)
    if seen.canary and seen.steps:
        _steps(root.add(Text("steps", "bold")), seen, seen.canary, now)
    if seen.analysis:
        _analysis(root, seen, now)
    if seen.conditions:
        root.add(Text("conditions", "bold")).add(_conditions(seen, now))
    if told := list(hints(seen)):
        node = root.add(Text("next", "bold"))
        for hint in told:
            node.add(Text(hint))
    return root


def shares(seen: Deployment) -> tuple[Share, ...]:
    """Give who gets how much: as the operator says, or, where it does not, by the canary's weight."""
    if seen.traffic or seen.stable is None:
        return seen.traffic
    weight = seen.canary.weight or 0 if seen.canary else 0
    stable = Share(seen.stable.name, seen.stable.version, 100 - weight, "stable")
    if seen.canary is None or not weight:
        return (stable,)
    return (stable, Share(seen.canary.name, seen.canary.version, weight, "canary"))


def hints(seen: Deployment) -> Iterator[str]:
    """Give the commands that a person may want now."""
    paused = seen.condition("Paused")
    why = paused.reason if paused and paused.status == "True" else ""
    if seen.spec_paused or why == "PausedBySpec":
        yield "set spec.paused: false to go on"
    elif why in ("PausedByVerb", "StateRebuilt"):
        yield command("resume", seen)
    elif why:
        yield f"{command('promote', seen)} to go on"
    if seen.canary and why:
        yield f"{command('abort', seen)} to give up"
        return
    closed = seen.target.closed
    if closed:
        yield f"{command('retry', seen)} to try {_version(closed.version)} again"
        if seen.holds("Stalled") and not closed.acknowledged and seen.stable:
            yield f"{command('ack', seen)} to take note of it"


def command(verb: str, seen: Deployment) -> str:
    """Write what says a verb."""
    return f"kubectl rollway {verb} {seen.name}" + (f" -n {seen.namespace}" if seen.namespace else "")


# ------------------------------------------------------------------------------------------------------- the parts


def _words(*parts: str | tuple[str, str] | None, between: str = "  ") -> Text:
    """Put what there is side by side."""
    text = Text()
    for part in parts:
        if not part:
            continue
        text.append(between if text else "")
        if isinstance(part, str):
            text.append(part)
        else:
            text.append(*part)
    return text


def _version(version: str) -> str:
    return f"v{version}" if version else "v?"


def _headline(seen: Deployment) -> Text:
    text = _words(
        (seen.name, "bold"), (seen.namespace, "dim"), (seen.phase or "Unknown", STYLES.get(seen.phase, ""))
    )
    text.append(f"\n{seen.message or 'the operator has not said anything yet'}")
    if seen.message and not seen.current:
        text.append("\nthe operator has not looked at the present spec yet", "yellow")
    return text


def _target(seen: Deployment, now: datetime) -> Text:
    followed = f"{seen.model}@{seen.alias}" if seen.alias else f"{seen.model} version {seen.asked_version}"
    target, closed = seen.target, seen.target.closed
    named = f"→ {_version(target.version)}" if target.version else "→ no version yet"
    ago = f"since {since(target.since, now)}" if target.since else None
    shut = (f"closed: {closed.reason}", "red") if closed else None
    strategy = f"by {seen.strategy}" if seen.strategy else None
    return _words(("model", "bold"), followed, named, target.revision, ago, strategy, shut)


def _bar(given: Sequence[Share]) -> Text:
    text = Text.assemble(("traffic", "bold"), "  ")
    left = _BAR
    for number, share in enumerate(given):
        later = sum(other.percent > 0 for other in given[number + 1 :])
        cells = min(left - later, max(1, round(share.percent * _BAR / 100))) if later else left
        cells = cells if share.percent else 0
        glyph, style = ("▒", "yellow") if share.tag == "canary" else ("█", "green")
        text.append(glyph * cells, style)
        left -= cells
    told = " · ".join(f"{_version(share.version)} {share.percent} %" for share in given)
    return text.append(f"  {told}")


def _served(stable: Revision, now: datetime) -> Text:
    ago = f"serves since {since(stable.promoted, now)}" if stable.promoted else None
    newer = ("a newer runtime image waits for restart", "yellow") if stable.newer_image else None
    return _words(("stable", "bold green"), _version(stable.version), stable.name, _ready(stable), ago, newer)


def _on_its_way(seen: Deployment, canary: Candidate, now: datetime) -> Text:
    blue_green = seen.strategy == "blueGreen"
    role = "preview" if blue_green else "canary"
    weight = f"{canary.weight} %" if canary.weight is not None and not blue_green else None
    ago = f"began {since(canary.started, now)} ago" if canary.started else None
    address = f"at {seen.name}-preview" if blue_green else None
    waits = "waits for promote" if blue_green and not seen.auto_promotion else None
    held = (f"held: {canary.held}", "yellow") if canary.held else None
    return _words(
        (role, "bold yellow"),
        _version(canary.version),
        canary.name,
        _ready(canary),
        weight,
        ago,
        address,
        waits,
        held,
    )


def _ready(revision: Revision) -> str | None:
    return None if revision.ready is None else f"{revision.ready} ready"


def _revision(root: Tree, scene: Scene, line: Text, revision: Revision) -> None:
    _pods(root.add(line), scene, revision.name)


def _pods(node: Tree, scene: Scene, revision: str) -> None:
    for pod in scene.pods or ():
        if pod.revision == revision:
            node.add(_pod(pod))


def _pod(pod: Pod) -> Text:
    mark = ("●", "green") if pod.ready else ("○", "yellow")
    plural = "" if pod.restarts == 1 else "s"
    restarts = (f"{pod.restarts} restart{plural}", "yellow") if pod.restarts else None
    return _words(mark, pod.name, pod.state, "ready" if pod.ready else "not ready", restarts, between=" ")


def _leaving(root: Tree, scene: Scene, before: str | None) -> None:
    """Show pods of revisions without a role: they go soon."""
    roles = {scene.seen.stable, scene.seen.canary}
    names = {revision.name for revision in roles if revision} | {before}
    others = [pod for pod in scene.pods or () if pod.revision not in names]
    if others:
        node = root.add(Text("without a role", "bold"))
        for pod in others:
            node.add(_pod(pod))


def _steps(node: Tree, seen: Deployment, canary: Candidate, now: datetime) -> None:
    at = len(seen.steps) if canary.promoting else canary.step
    for number, step in enumerate(seen.steps):
        mark, style = _mark(number, at)
        told = None
        if number == at and step.pause and canary.in_force:
            told = f"{since(canary.in_force, now)} since the weight is in force"
        elif number == at and not step.pause and canary.in_force is None:
            told = "not in force yet"
        if number == at and canary.leaving:
            told = "over; pods for what follows are awaited"
        node.add(_words((f"{mark} {step.words}", style), told))
    mark, style = _mark(len(seen.steps), at)
    node.add(Text(f"{mark} promote", style))


def _mark(number: int, at: int | None) -> tuple[str, str]:
    if at is None or number > at:
        return " ", "dim"
    return ("▶", "bold cyan") if number == at else ("✓", "green")


def _analysis(root: Tree, seen: Deployment, now: datetime) -> None:
    analysis = seen.analysis
    if analysis is None:
        return
    ago = f"measured {since(analysis.measured, now)} ago" if analysis.measured else None
    line = _words(("analysis", "bold"), (analysis.phase, STYLES.get(analysis.phase, "")), ago)
    node = root.add(line)
    if analysis.metrics:
        grid = _grid(7)
        for metric in analysis.metrics:
            grid.add_row(*_metric(metric))
        node.add(grid)


def _grid(columns: int) -> Table:
    """Make columns of which the last one, a sentence, is wrapped where the line is too short."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(columns - 1):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _metric(metric: Metric) -> tuple[Text, ...]:
    style = STYLES.get(metric.phase, "")
    interval = f"[{', '.join(metric.interval)}]" if metric.interval else ""
    samples = "" if metric.samples is None else f"{metric.samples} samples"
    why = ": ".join(part for part in (metric.reason, metric.message) if part)
    return (
        Text(f"{_MARKS.get(metric.phase, '·')} {metric.name}", style),
        Text(metric.value),
        Text(interval),
        Text(metric.threshold),
        Text(samples),
        Text(metric.phase, style),
        Text(why),
    )


def _conditions(seen: Deployment, now: datetime) -> Table:
    grid = _grid(5)
    for condition in seen.conditions:
        good = condition.type not in _ABNORMAL
        style = {"True": "green" if good else "yellow", "False": "red" if good else ""}.get(
            condition.status, "yellow"
        )
        grid.add_row(
            Text(condition.type, "red" if condition.type == "Stalled" else ""),
            Text(condition.status, style),
            Text(since(condition.since, now)),
            Text(condition.reason),
            Text(condition.message),
        )
    return grid
