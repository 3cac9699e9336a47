"""Rules and dashboards ask for what is exported, and what is exported is of use."""

import json
import re
from pathlib import Path

import pytest

from rollway_dashboards import __main__ as generator
from rollway_testing import monitoring
from rollway_testing.monitoring import Expression, Selector

ROOT = Path(__file__).parents[2]
TARGETS = {"namespace", "pod", "job", "instance"}
"""Labels that each target has, and each of its series."""
PODS = {"rollway_dev_model_deployment", "rollway_dev_revision", "app_kubernetes_io_version"}
"""Labels that the targets of model pods have, too: podTargetLabels of their PodMonitors."""
OTHERS = {
    "up": TARGETS | PODS,
    "ALERTS": {"alertname", "alertstate"},
    "process_start_time_seconds": PODS | TARGETS,
    "process_resident_memory_bytes": PODS | TARGETS,
    "process_cpu_seconds_total": PODS | TARGETS,
}
"""Series of Prometheus itself and of its client library."""
RECORDED = {rule["record"] for rule in monitoring.rules() if "record" in rule}
EXPRESSIONS = monitoring.expressions(**dict.fromkeys(monitoring.VARIABLES, "x"))


def rows() -> dict[str, list[str]]:
    """The rows of docs/metrics.md by the series' name: type, labels, meaning, used by."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `"))
    return {name.strip("`"): rest for name, *rest in cells}


LISTED = rows()


def listed(selector: Selector) -> str:
    """The name by which docs/metrics.md lists what a selector asks for: a histogram's without its ending."""
    whole = re.sub(r"_(bucket|sum|count)$", "", selector.metric)
    return whole if LISTED.get(whole, [""])[0] == "histogram" else selector.metric


def label_names(selector: Selector) -> set[str]:
    """The labels that the series of a selector have."""
    if selector.metric in OTHERS:
        return OTHERS[selector.metric] | TARGETS
    name = listed(selector)
    own = set(re.findall(r"`(\w+)`", LISTED[name][1])) | TARGETS
    if name.startswith("rollway_modeldeployment_"):
        return own | {"name"}
    return own | PODS | {"le"} if name.startswith(("rollway_inference_", "rollway_model_")) else own


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda each: each.source)
def test_every_expression_asks_for_what_is_exported_or_recorded(expression: Expression) -> None:
    asked = monitoring.selectors(expression.text)
    assert asked
    known = LISTED.keys() | RECORDED | OTHERS.keys()
    assert [each.metric for each in asked if listed(each) not in known] == []
    exported = [each for each in asked if each.metric not in RECORDED]
    assert {
        each.metric: each.labels - label_names(each) for each in exported if each.labels - label_names(each)
    } == {}


def users(name: str) -> list[str]:
    """Who uses a series that docs/metrics.md lists."""
    found = monitoring.users()
    names = [name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))]
    return sorted({user for each in names for user in found.get(each, ())})


@pytest.mark.parametrize("name", LISTED)
def test_every_series_is_used_or_says_why_not(name: str) -> None:
    """The column `used by` has the alerts and dashboards, or else the reason in words."""
    said = LISTED[name][3]
    if found := users(name):
        assert said == ", ".join(found)
    else:
        assert said.startswith("nothing here: ")


def test_the_dashboards_in_the_chart_are_those_of_the_code(tmp_path: Path) -> None:
    generator.main(tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in monitoring.DASHBOARDS}


def test_each_dashboard_has_an_identity_of_its_own_and_fits_into_a_config_map() -> None:
    dashboards = [json.loads(path.read_text()) for path in monitoring.DASHBOARDS]
    assert [each["uid"] for each in dashboards] == ["rollway-fleet", "rollway-model"]
    assert all(path.stat().st_size < 1 << 20 for path in monitoring.DASHBOARDS)


@pytest.mark.parametrize("path", monitoring.DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_asks_the_source_that_is_chosen_and_has_a_place(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    panels = list(monitoring.panels(dashboard))
    titles = [panel["title"] for panel in panels]
    assert len(titles) == len(set(titles))
    for panel in panels:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {source["uid"] for source in sources} == {"${datasource}"}
    taken = [
        (x, y)
        for panel in dashboard["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


@pytest.mark.parametrize("path", monitoring.DASHBOARDS, ids=lambda path: path.stem)
def test_the_columns_of_a_table_go_by_the_names_that_grafana_gives_them(path: Path) -> None:
    """Grafana calls the values `Value #A` and so on, and those of an only query `Value`."""
    tables = [panel for panel in monitoring.panels(json.loads(path.read_text())) if panel["type"] == "table"]
    assert tables
    for panel in tables:
        [organized] = [each["options"] for each in panel["transformations"] if each["id"] == "organize"]
        letters = [target["refId"] for target in panel["targets"]]
        columns = {f"Value #{letter}" for letter in letters} if len(letters) > 1 else {"Value"}
        assert organized["excludeByName"].keys() | organized["renameByName"].keys() == columns | {"Time"}


def test_a_variable_that_nobody_fills_is_seen() -> None:
    with pytest.raises(ValueError, match="unexpected character"):
        monitoring.selectors(monitoring.fill("up{name=~$nobody}", {}))
