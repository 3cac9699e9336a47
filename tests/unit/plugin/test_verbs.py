"""What is written for a verb, and what becomes of the operator's answer."""

import re
from typing import Any

import pytest

from kubectl_rollway import objects, verbs
from kubectl_rollway.errors import ForbiddenError, RefusedError, UnreachableError
from kubectl_rollway.verbs import Answer, Wish
from rollway_operator import verbs as heard
from rollway_testing.fake_cluster import (
    MODEL,
    PROMOTED_11,
    PROMOTED_12,
    REVISIONS,
    STABLE,
    FakeCluster,
    at_rest,
    deployment,
    first,
    hearing,
    mid_step,
    preview,
    revision,
    rolled_back,
)

from .conftest import Run

CANDIDATE, SERVES, BEFORE = "fraud-8d1a22c0", "fraud-7c9f0a1b", "fraud-55aa55aa"


def named(verb: str, body: dict[str, Any], chosen: str | None = None) -> str:
    return verbs.named(verb, objects.deployment(body), objects.stored(REVISIONS), chosen)


@pytest.mark.parametrize(
    ("verb", "body", "revision"),
    [
        ("promote", mid_step(), CANDIDATE),
        ("promote", preview(), CANDIDATE),
        ("promote-full", mid_step(), CANDIDATE),
        ("promote", deployment({"stable": STABLE, "model": MODEL}), CANDIDATE),  # the target waits
        ("abort", mid_step(), CANDIDATE),
        ("retry", rolled_back(), CANDIDATE),
        ("undo", at_rest(), BEFORE),
        ("undo", mid_step(), SERVES),  # what is on its way is given up, even where it takes over just now
        ("restart", mid_step(), SERVES),
        *((verb, mid_step(), SERVES) for verb in ("pause", "resume", "ack")),
        *((verb, first(), CANDIDATE) for verb in ("pause", "resume", "ack")),
        ("pause", deployment({"model": MODEL}), CANDIDATE),
    ],
)
def test_a_verb_names_the_revision_that_the_operator_asks_for(
    verb: str, body: dict[str, Any], revision: str
) -> None:
    assert named(verb, body) == revision


@pytest.mark.parametrize(
    ("verb", "body", "why"),
    [
        ("abort", at_rest(), "nothing of fraud is on its way"),
        ("promote", deployment(), "has not said yet what would be deployed"),
        ("pause", deployment(), "has not said yet what would be deployed"),
        ("retry", at_rest(), "no revision of fraud is closed"),
        ("undo", first(), "no version of fraud serves yet"),
        ("restart", first(), "no version of fraud serves yet"),
    ],
)
def test_a_verb_without_a_revision_to_name_is_refused(verb: str, body: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        named(verb, body)


def test_retry_takes_the_one_rejected_version_where_the_target_is_open() -> None:
    body = rolled_back()
    del body["status"]["model"]["closed"]
    assert named("retry", body) == CANDIDATE
    body["status"]["rejected"].append({"version": "9", "revision": "fraud-99999999"})
    with pytest.raises(RefusedError, match=r"--revision: fraud-8d1a22c0 \(v13\), fraud-99999999 \(v9\)"):
        named("retry", body)
    assert named("retry", body, "fraud-99999999") == "fraud-99999999"


def history(*names: str) -> list[dict[str, Any]]:
    return [PROMOTED_12 | {"revision": name} for name in names]


@pytest.mark.parametrize(
    ("promoted", "stable", "before"),
    [
        (["a", "b", "c"], "c", "b"),
        (["a", "b", "c", "b"], "b", "c"),  # undo of an undo
        (["a", "gone", "c"], "c", "a"),  # pruned
        (["a", "b"], "b", "a"),
        (["c"], "c", "b"),  # what history forgot is known by its revision
        ([], "c", "b"),
        (["a", "b"], "c", "b"),  # c was promoted by an operator that lost its history
    ],
)
def test_undo_goes_back_to_what_was_promoted_before(promoted: list[str], stable: str, before: str) -> None:
    kept = objects.stored(
        revision(name, number, "1", served="true") for number, name in enumerate(("a", "b", "c"))
    )
    body = deployment({"stable": STABLE | {"revision": stable}, "history": history(*promoted)})
    assert verbs.named("undo", objects.deployment(body), kept) == before


def test_undo_never_goes_to_what_never_served() -> None:
    body = deployment({"stable": STABLE, "history": [PROMOTED_11 | {"outcome": "Aborted"}, PROMOTED_12]})
    kept = objects.stored([revision(BEFORE, 1, "11"), revision(SERVES, 2, "12", served="true")])
    with pytest.raises(RefusedError, match="no revision of fraud that served before"):
        verbs.named("undo", objects.deployment(body), kept)


@pytest.mark.parametrize("revision", [CANDIDATE, "a" * 40 + "-8d1a22c0"])
def test_the_operator_reads_what_is_written_and_its_answer_is_found(revision: str) -> None:
    wish = Wish("promote", revision, verbs.nonce())
    (verb,) = heard.new({wish.annotation: wish.value}, {})
    assert (verb.name, verb.revision, verb.value) == ("promote", revision, wish.value)
    said = f"{wish.annotation}: {verb.shown}: nothing holds it: really"
    event = {"reason": heard.IGNORED, "message": said}
    others = [
        {"reason": "Promoted", "message": said},
        {"reason": heard.HANDLED, "message": f"{wish.annotation}: x/1: y"},
    ]
    assert verbs.answer(wish, others) is None
    assert verbs.answer(wish, [*others, event]) == Answer(acted=False, message="nothing holds it: really")


def test_two_wishes_differ() -> None:
    assert len({verbs.nonce() for _ in range(50)}) > 45


# ----------------------------------------------------------------------------------------------- the commands


@pytest.mark.parametrize(
    ("words", "verb", "body", "revision"),
    [
        (["promote"], "promote", mid_step(), CANDIDATE),
        (["promote", "--full"], "promote-full", mid_step(), CANDIDATE),
        (["abort"], "abort", mid_step(), CANDIDATE),
        (["retry"], "retry", rolled_back(), CANDIDATE),
        (["retry", "--revision", "fraud-1"], "retry", rolled_back(), "fraud-1"),
        (["undo"], "undo", at_rest(), BEFORE),
        (["undo", "--to", "fraud-1"], "undo", at_rest(), "fraud-1"),
        (["pause"], "pause", at_rest(), SERVES),
        (["resume"], "resume", at_rest(), SERVES),
        (["restart"], "restart", at_rest(), SERVES),
        (["ack"], "ack", rolled_back(), SERVES),
    ],
)
def test_a_command_writes_one_annotation_and_prints_what_the_operator_says(
    run: Run, cluster: FakeCluster, words: list[str], verb: str, body: dict[str, Any], revision: str
) -> None:
    cluster.add(body).stored = REVISIONS
    cluster.operator = hearing("it goes on")
    command, *options = words
    result = run(command, "fraud", *options)
    ((key, value),) = cluster.written
    assert key == f"rollway.dev/{verb}"
    assert re.fullmatch(rf"{revision}/[0-9a-f]{{6}}", value)
    assert (result.exit_code, result.stdout) == (0, "it goes on\n")
    assert result.stderr == f"fraud: {key}={value}\n"


def test_a_verb_that_the_operator_ignores_exits_with_1(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step()).operator = hearing("nothing holds it", acts=False)
    result = run("promote", "fraud")
    assert result.exit_code == 1
    assert "Error: the operator did nothing: ignored: nothing holds it" in result.stderr


def test_an_operator_that_does_not_answer_exits_with_4(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step())
    result = run("promote", "fraud")
    assert result.exit_code == 4
    assert "did not answer within 10 s" in result.stderr
    assert len(cluster.written) == 1


def test_an_answer_without_an_event_is_not_taken_for_a_yes(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step())

    def silent(cluster: FakeCluster, verb: str, value: str) -> None:
        cluster.objects["fraud"]["status"]["lastHandled"] = {verb: value}

    cluster.operator = silent
    result = run("promote", "fraud")
    assert result.exit_code == 4
    assert "the Event that says what it did did not come within 10 s" in result.stderr


def test_who_may_not_read_events_is_told_so_at_once(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step()).operator = hearing("it goes on")
    cluster.forbids["events"] = ForbiddenError("events is forbidden: you cannot list them")
    result = run("promote", "fraud")
    assert result.exit_code == 5
    assert "cannot list them" in result.stderr
    assert len([what for what, _ in cluster.asked if what.startswith("events")]) == 1


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(run: Run, cluster: FakeCluster) -> None:
    cluster.script = [mid_step(), UnreachableError("away"), UnreachableError("away")]

    def operator(cluster: FakeCluster, verb: str, value: str) -> None:
        body = mid_step()
        body["status"]["lastHandled"] = {verb: value}
        cluster.script.append(body)
        cluster.told.append({"reason": "VerbHandled", "message": f"rollway.dev/{verb}: {value}: it goes on"})

    cluster.operator = operator
    assert run("promote", "fraud").exit_code == 0


def test_nobody_waits_with_no_wait(run: Run, cluster: FakeCluster) -> None:
    cluster.add(mid_step())
    result = run("promote", "fraud", "--no-wait")
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(cluster.written) == 1


def test_nothing_is_written_where_no_revision_can_be_named(run: Run, cluster: FakeCluster) -> None:
    cluster.add(at_rest())
    result = run("abort", "fraud")
    assert result.exit_code == 1
    assert result.stderr == "Error: nothing of fraud is on its way\n"
    assert cluster.written == []
