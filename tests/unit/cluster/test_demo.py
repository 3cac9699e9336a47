import io
from typing import Any

import pytest

from rollway_cluster.client import complaints
from rollway_cluster.demo import how_it_ended, judged, regularization, serves, summary, users_saw
from rollway_cluster.errors import ClusterError
from rollway_cluster.jobs import split
from rollway_cluster.judge import tally, wrong
from rollway_cluster.report import Report, table

EXPECTED = {"1": [[0.1, 0.9], [0.2, 0.8]], "2": [[0.3, 0.7], [0.4, 0.6]]}
WHOLE = [0.1, 0.9, 0.2, 0.8]


def answer(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A right answer of version 1 to row 0, the way the client prints it."""
    return {
        "number": number,
        "time": 100.0 + number * 0.25,
        "seconds": 0.01,
        "mode": "rest-fresh",
        "row": 0,
        "status": 200,
        "version": "1",
        "revision": "breast-cancer-12345678",
        "model_version": "1",
        "outputs": [0.1, 0.9],
        "error": None,
        "failed": False,
    } | changes


class TestWrong:
    def test_an_answer_that_equals_its_version_is_right(self) -> None:
        assert wrong(answer(), EXPECTED) is None
        assert wrong(answer(version="2", model_version="2", row=1, outputs=[0.4, 0.6]), EXPECTED) is None

    def test_an_answer_to_all_rows_is_compared_with_all(self) -> None:
        whole = {"protocol": "invocations", "status": 200, "version": "1", "outputs": WHOLE}
        assert wrong(whole, EXPECTED) is None
        assert "4 numbers" in (wrong(whole | {"outputs": [0.1, 0.9]}, EXPECTED) or "")

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"status": 503, "error": "busy"}, "status 503: busy"),
            ({"status": "TIMEOUT", "version": None, "outputs": None}, "status TIMEOUT"),
            ({"version": None}, "names version None"),
            ({"version": "3", "model_version": "3"}, "names version 3"),
            ({"model_version": "2"}, "header names version 1, body 2"),
            ({"outputs": [0.3, 0.7]}, "version 1 gives [0.1, 0.9], the answer says [0.3, 0.7]"),
            ({"outputs": [0.1]}, "version 1 gives 2 numbers, the answer holds 1"),
            ({"outputs": []}, "the answer holds 0"),
            ({"outputs": [float("nan"), 0.9]}, "the answer says [nan, 0.9]"),
        ],
    )
    def test_anything_else_is_wrong_and_says_why(self, changes: dict[str, Any], why: str) -> None:
        assert why in (wrong(answer(**changes), EXPECTED) or "")


def test_traffic_is_counted_by_second_and_version() -> None:
    second = {"version": "2", "model_version": "2", "outputs": [0.3, 0.7]}
    answers = [answer(number, **(second if number >= 5 else {})) for number in range(12)]
    found = tally(reversed(answers), EXPECTED)
    assert (found.sent, found.failures) == (12, ())
    assert {number: dict(counted) for number, counted in found.seconds.items()} == {
        0: {"1": 4},
        1: {"1": 1, "2": 3},
        2: {"2": 4},
    }
    assert found.by_version == {"1": 5, "2": 7}


def test_a_failed_answer_is_named_with_its_number_mode_and_second() -> None:
    found = tally([answer(), answer(4, status="ERROR", error="ConnectError: refused", failed=True)], EXPECTED)
    assert found.failures == ("request 4 (rest-fresh, second 1): status ERROR: ConnectError: refused",)
    assert summary(found) == "2 requests, 1 failed, slowest 0.01 s; 1 by version 1"


def test_what_the_client_calls_failed_is_failed() -> None:
    assert len(tally([answer(failed=True)], EXPECTED).failures) == 1


def test_users_see_what_each_version_answered_and_what_became_of_it() -> None:
    second = {"version": "2", "model_version": "2", "outputs": None, "status": 500, "failed": True}
    found = tally((answer(number, **(second if 40 <= number < 44 else {})) for number in range(80)), EXPECTED)
    history = [
        {"version": "1", "outcome": "Promoted", "reason": "GatesPassed"},
        {"version": "2", "outcome": "Aborted", "reason": "AnalysisFailed"},
    ]
    assert users_saw(found, {"status": {"history": history}})[2:] == [
        "1              76       0                  19.8  Promoted GatesPassed",
        "2               0       4                   0.8  Aborted AnalysisFailed",
    ]


def test_a_rollout_has_ended_once_nothing_is_on_its_way() -> None:
    entry = {"version": "2", "outcome": "Aborted", "reason": "AnalysisFailed"}
    assert how_it_ended({"status": {"history": [entry]}}, "2") == entry
    assert how_it_ended({"status": {"history": [entry], "canary": {"version": "3"}}}, "2") is None
    assert how_it_ended({"status": {"history": [entry]}}, "3") is None
    assert how_it_ended(None, "2") is None


def test_predictions_must_come_over_all_three_protocols() -> None:
    answers = [
        {"protocol": protocol, "status": 200, "version": "1", "outputs": WHOLE}
        for protocol in ("rest-v2", "grpc-v2", "invocations")
    ]
    assert "12 numbers, all equal" in judged(answers, EXPECTED)
    with pytest.raises(ClusterError, match="answers came over rest-v2, grpc-v2"):
        judged(answers[:2], EXPECTED)
    with pytest.raises(ClusterError, match="invocations: status 500"):
        judged([*answers[:2], answers[2] | {"status": 500}], EXPECTED)


def test_each_version_is_better_than_the_one_before() -> None:
    strengths = [regularization(version) for version in range(1, 50)]
    assert strengths == sorted(strengths, reverse=True)
    # Below this the held-out log loss of the breast cancer sample grows again.
    assert min(strengths) > 0.35


def served(**status: Any) -> dict[str, Any]:
    """A ModelDeployment that serves version 2."""
    conditions = [{"type": "Ready", "status": "True", "reason": "Serving", "message": ""}]
    settled = {"observedGeneration": 3, "stable": {"version": "2"}, "conditions": conditions}
    return {"metadata": {"generation": 3}, "status": settled | status}


def test_a_settled_deployment_serves_its_version() -> None:
    assert serves(served(), "2")
    assert not serves(served(), "3")
    assert not serves(None, "2")
    assert not serves({"metadata": {"generation": 1}}, "2")
    assert not serves(served(observedGeneration=2), "2")


def test_a_deployment_under_way_does_not_serve_yet() -> None:
    under_way = [*served()["status"]["conditions"], {"type": "Reconciling", "status": "True"}]
    assert not serves(served(conditions=under_way), "2")


def test_a_version_that_cannot_become_ready_ends_the_wait() -> None:
    stalled = [{"type": "Stalled", "status": "True", "reason": "SmokeTestFailed", "message": "answers NaN"}]
    with pytest.raises(ClusterError, match="version 3 is stalled: SmokeTestFailed: answers NaN"):
        serves(served(conditions=stalled, model={"targetVersion": "3"}), "3")
    assert not serves(served(conditions=stalled, model={"targetVersion": "2"}), "3")


def test_a_log_parts_into_lines_and_sentences() -> None:
    assert split(["training", '{"event": "trained"}', ""]) == ([{"event": "trained"}], ["training"])


def test_a_table_is_as_wide_as_it_needs() -> None:
    assert table(("step", "seconds"), [("train", "1.0"), ("a longer one", "12.5")], right=(1,)) == [
        "step          seconds",
        "------------  -------",
        "train             1.0",
        "a longer one     12.5",
    ]


def test_a_failed_step_is_in_the_table_and_its_error_goes_on() -> None:
    out = io.StringIO()
    report = Report(out=out)
    with report.step("cluster") as step:
        step.result = "runs already"
    with pytest.raises(ClusterError), report.step("images"):
        raise ClusterError("no space left")
    report.finish()
    lines = out.getvalue().splitlines()
    assert any(line.startswith("cluster") and line.endswith("runs already") for line in lines)
    assert any(line.startswith("images") and line.endswith("FAILED") for line in lines)
    assert "\x1b" not in out.getvalue()


def test_colours_are_used_only_where_they_are_wanted() -> None:
    out = io.StringIO()
    with Report(colour=True, out=out).step("images"):
        pass
    assert "\x1b[1mimages\x1b[0m" in out.getvalue()


def test_a_pod_says_what_its_containers_ended_with() -> None:
    ended = {"exitCode": 1, "reason": "Error", "message": '{"reason": "NotAModel"}'}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off"}
    fetch = {"name": "fetch", "ready": False, "restartCount": 2}
    fetch |= {"state": {"waiting": waiting}, "lastState": {"terminated": ended}}
    pod = {"status": {"phase": "Pending", "initContainerStatuses": [fetch]}}
    assert complaints(pod) == {
        "fetch": 'CrashLoopBackOff: back-off, ended with 1 (Error) {"reason": "NotAModel"}, restarts 2'
    }
    assert complaints({"status": {"phase": "Succeeded"}}) == {}
