"""The rules of the charts: promtool has nothing to say of them, and each alert fires when it should and no longer."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rollway_testing import monitoring
from rollway_testing.prometheus import promtool

ROOT = Path(__file__).parents[3]
TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
ALERTS = {rule["alert"]: rule for rule in monitoring.rules() if "alert" in rule}


def name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", monitoring.RULE_FILES, ids=name)
def test_promtool_has_nothing_to_say_of_the_rules(path: Path) -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path), folder=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_every_alert_fires_when_it_should_and_no_longer(path: Path) -> None:
    tested = promtool("test", "rules", path.name, folder=path.parent)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def told(alert: str) -> list[list[bool]]:
    """Of each test of an alert, whether it is expected to fire at each time that is looked at."""
    return [
        [bool(check["exp_alerts"]) for check in sorted(test["alert_rule_test"], key=minutes)]
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        if test["name"] == alert
    ]


def minutes(check: dict[str, Any]) -> int:
    assert check["eval_time"].endswith("m")
    return int(check["eval_time"].removesuffix("m"))


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_is_seen_quiet_then_firing_then_quiet(alert: str) -> None:
    assert told(alert)
    for fires in told(alert):
        assert (fires[0], any(fires), fires[-1]) == (False, True, False)


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_that_waits_is_seen_waiting(alert: str) -> None:
    """With a `for`, some test looks twice before the alert fires: before the trouble, and within that time."""
    if "for" in ALERTS[alert] and not ALERTS[alert]["expr"].startswith("absent"):
        assert any(fires.index(True) >= 2 for fires in told(alert))


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_every_alert_tells_how_bad_it_is_what_it_is_about_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    annotations = rule["annotations"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(annotations) == {"summary", "description", "runbook_url"}
    # A summary is the same for every object, so that notifications can be grouped by it.
    assert "{{" not in annotations["summary"]
    assert "$labels." in annotations["description"]
    runbook = annotations["runbook_url"].removeprefix("https://rollway.dev/")
    assert runbook == f"docs/runbooks/{alert}.md"
    assert (ROOT / runbook).is_file()


def test_every_alert_about_a_model_names_it() -> None:
    unnamed = [
        alert
        for alert, rule in ALERTS.items()
        if alert.startswith(("RollwayModel", "RollwayCanary"))
        and "{{ $labels.namespace }}/{{ $labels.name }}" not in rule["annotations"]["description"]
    ]
    assert unnamed == []


def test_no_runbook_is_without_an_alert() -> None:
    runbooks = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
    assert runbooks == set(ALERTS)
    index = (ROOT / "docs/runbooks/README.md").read_text()
    assert [alert for alert in sorted(ALERTS) if f"[{alert}]({alert}.md)" not in index] == []


def test_recording_rules_are_named_by_level_metric_and_operation() -> None:
    recorded = [rule["record"] for rule in monitoring.rules() if "record" in rule]
    assert [each for each in recorded if each.count(":") != 2] == []
    used = monitoring.users()
    assert [each for each in recorded if not used.get(each)] == []
