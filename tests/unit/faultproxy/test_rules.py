"""Which calls a rule is about, and how it counts."""

import pytest
from pydantic import ValidationError

from rollway_faultproxy.calls import Call, Journal
from rollway_faultproxy.rules import RULE, Answer, Cut, Match, Pass, Rule, Rules

DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
APPLY = "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("method", "path", "content_type", "verb", "resource", "name"),
    [
        ("GET", DEPLOYMENTS, "", "list", "deployments", ""),
        (
            "GET",
            "/apis/rollway.dev/v1alpha1/modeldeployments?watch=true",
            "",
            "watch",
            "modeldeployments",
            "",
        ),
        ("GET", f"{DEPLOYMENTS}/iris", "", "get", "deployments", "iris"),
        ("POST", f"{DEPLOYMENTS}?fieldManager=x", "application/yaml", "create", "deployments", ""),
        ("PATCH", f"{DEPLOYMENTS}/iris", f"{APPLY}; charset=utf-8", "apply", "deployments", "iris"),
        ("PATCH", f"{DEPLOYMENTS}/iris/scale", "", "patch", "deployments/scale", "iris"),
        ("PUT", "/api/v1/nodes/a/status", "", "update", "nodes/status", "a"),
        ("DELETE", "/api/v1/namespaces/shop", "", "delete", "namespaces", "shop"),
        ("GET", "/api/v1/namespaces", "", "list", "namespaces", ""),
        ("GET", "/bucket/key", "", "get", "", ""),
    ],
)
def test_a_call_is_told_in_kubernetes_words(
    method: str, path: str, content_type: str, verb: str, resource: str, name: str
) -> None:
    call = Call.of(method, path, content_type)
    assert (call.verb, call.resource, call.name) == (verb, resource, name)
    assert call.namespace == ("shop" if "/namespaces/shop/" in path else "")


def test_a_review_and_a_read_change_nothing() -> None:
    assert Call.of("POST", DEPLOYMENTS).mutating
    assert Call.of("DELETE", f"{DEPLOYMENTS}/iris").mutating
    assert not Call.of("GET", DEPLOYMENTS).mutating
    assert not Call.of("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").mutating


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        (Match(), True),
        (Match(method="PATCH|POST"), True),
        (Match(method="POS"), False),
        (Match(resource="deployments"), True),
        (Match(resource="deployments/scale"), False),
        (Match(verb="create|apply", mutating=True), True),
        (Match(mutating=False), False),
        (Match(namespace="shop"), True),
        (Match(namespace="bank"), False),
        (Match(path="namespaces/sh.p/"), True),
        (Match(path="^/deployments"), False),
    ],
)
def test_all_that_a_match_names_must_hold(match: Match, holds: bool) -> None:
    assert match.holds(Call.of("POST", DEPLOYMENTS)) is holds


def test_what_a_call_is_about_may_stand_in_its_path_or_in_its_body() -> None:
    match = Match(about=r"\biris\b")
    assert match.holds(Call.of("PATCH", f"{DEPLOYMENTS}/iris-1/scale"), b"{}")
    assert match.holds(Call.of("POST", DEPLOYMENTS), b'{"metadata": {"name": "iris"}}')
    assert not match.holds(Call.of("POST", DEPLOYMENTS), b'{"metadata": {"name": "irises"}}')


def test_a_rule_lets_some_calls_through_and_acts_on_some() -> None:
    rules = Rules()
    rules.put("busy", Rule(action=Answer(status=503), match=Match(mutating=True), skip=1, times=2))
    calls = [Call.of(method, DEPLOYMENTS) for method in ("POST", "GET", "POST", "POST", "POST")]
    chosen = [rules.choose(call) for call in calls]
    assert [standing is not None for standing in chosen] == [False, False, True, True, False]
    assert (rules.shown()["busy"]["matched"], rules.shown()["busy"]["fired"]) == (4, 2)


def test_the_rule_that_stands_longest_acts_and_all_count() -> None:
    rules = Rules()
    rules.put("first", Rule(action=Cut(when="before"), times=1))
    rules.put("second", Rule(action=Pass()))
    acting = [rules.choose(Call.of("GET", DEPLOYMENTS)) for _ in range(2)]
    assert [standing and standing.name for standing in acting] == ["first", "second"]
    assert rules.shown()["second"]["matched"] == 2


def test_what_is_withdrawn_acts_no_more_and_lets_go() -> None:
    rules = Rules()
    rules.put("busy", Rule(action=Pass()))
    standing = rules.choose(Call.of("GET", DEPLOYMENTS))
    assert standing is not None
    rules.clear()
    assert standing.withdrawn.is_set()
    assert rules.choose(Call.of("GET", DEPLOYMENTS)) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"action": {"do": "explode"}}',
        '{"action": {"do": "pass"}, "tmies": 1}',
        '{"action": {"do": "cut"}}',
        '{"action": {"do": "pass"}, "times": 0}',
    ],
)
def test_a_misspelt_rule_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RULE.validate_json(text)


def test_the_record_counts_and_goes_on_from_any_entry() -> None:
    journal = Journal()
    for method in ("GET", "POST", "POST"):
        journal.add(Call.of(method, DEPLOYMENTS))
    assert journal.counts == {"list deployments": 1, "create deployments": 2}
    later = journal.after(1)
    assert [(entry["number"], entry["verb"], entry["mutating"]) for entry in later] == [
        (2, "create", True),
        (3, "create", True),
    ]
