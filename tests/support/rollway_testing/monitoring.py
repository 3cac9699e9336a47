"""The rules and dashboards that the charts bring: their expressions, and the series that these ask for."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import promql_parser
import yaml

CHARTS = Path(__file__).parents[3] / "charts"
RULE_FILES = sorted(CHARTS.glob("*/files/rules/*.yaml"))
DASHBOARDS = sorted(CHARTS.glob("*/files/dashboards/*.json"))
VARIABLES = ("namespace", "name", "metric")
"""The dashboards' own."""
_BUILT_IN = {"__rate_interval": "5m", "__range": "1h"}
"""What Grafana itself puts into an expression, as for the last hour."""

MAY_BE_EMPTY = {
    "Rollway / Fleet: Alerts A": "no alert fires",
    "Rollway / Fleet: Targets that are down A": "all are up",
    "Rollway / Fleet: Queries to Prometheus A": "evidence is read from the pods",
    "Rollway / Fleet: Notifications A": "nobody is to be notified",
    "Rollway / Fleet: Notifications B": "nobody is to be notified",
    "RollwayEvidenceFailing": "evidence is read from the pods",
    "RollwayNotificationsDropped": "nobody is to be notified",
}
"""What has no data where all is well and nothing more is asked for than the charts' defaults, and why."""


@dataclass(frozen=True)
class Expression:
    """One expression in PromQL, with nothing left to fill in."""

    source: str
    """Where it stands: the rule's name, or the dashboard, the panel and the query's letter."""
    kind: Literal["alert", "record", "panel"]
    text: str


def rules() -> list[dict[str, Any]]:
    """Every rule of every file, as it stands there."""
    return [
        rule
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def expressions(**variables: str) -> list[Expression]:
    """Every expression of every rule and panel; `variables` are the dashboards', by name.

    A variable that stays open fails: `$` is no PromQL.
    """
    found = [
        Expression(
            rule.get("alert") or rule["record"], "alert" if "alert" in rule else "record", rule["expr"]
        )
        for rule in rules()
    ]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                source = f"{dashboard['title']}: {panel['title']} {target['refId']}"
                found.append(Expression(source, "panel", fill(target["expr"], variables)))
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something, those in rows among them."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] not in ("row", "text"):
            yield panel


def fill(expression: str, variables: dict[str, str]) -> str:
    """Put values in the place of `$name`."""
    # The longest name first, since one may begin another.
    for name, value in sorted((_BUILT_IN | variables).items(), key=lambda item: -len(item[0])):
        expression = expression.replace(f"${name}", value)
    return expression


@dataclass(frozen=True)
class Selector:
    """What an expression asks Prometheus for: series of a name, chosen by labels."""

    metric: str
    labels: frozenset[str]


def selectors(expression: str) -> list[Selector]:
    """Every selector of an expression; what is no PromQL raises ValueError."""
    found: list[Selector] = []

    def note(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            labels = frozenset(matcher.name for matcher in node.matchers.matchers)
            found.append(Selector(node.name, labels))

    promql_parser.walk(promql_parser.parse(expression), note)
    return found


def users() -> dict[str, list[str]]:
    """By each series that is asked for, the alerts and dashboards that use it, also through recorded series."""
    asked: dict[str, set[str]] = {}
    for each in expressions(**dict.fromkeys(VARIABLES, "x")):
        user = f"*{each.source.split(': ')[0].split(' / ')[1]}*" if each.kind == "panel" else each.source
        for selector in selectors(each.text):
            asked.setdefault(selector.metric, set()).add(user)

    def final(metric: str) -> set[str]:
        """Follow a recorded series to those who use it."""
        return {end for user in asked.get(metric, ()) for end in (final(user) if ":" in user else {user})}

    return {metric: sorted(final(metric)) for metric in asked}


def unanswered(query: Callable[[str], Sequence[object]], **variables: str) -> dict[str, str]:
    """What a Prometheus gives no data for though it should: source and expression, of every panel and rule.

    Of an alert each series that it asks for must be there, in whatever state: where all is well it says nothing itself.
    """
    asked = [
        (each.source, text)
        for each in expressions(**variables)
        if each.source not in MAY_BE_EMPTY
        for text in (
            [selector.metric for selector in selectors(each.text)] if each.kind == "alert" else [each.text]
        )
    ]
    return {source: text for source, text in asked if not query(text)}
