"""Notices of the operator as a process, to receivers on loopback that are well, down, slow, erring and throttling."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubelet import Nature
from rollway_testing.processes import free_port
from rollway_testing.receiver import Receivers
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story, condition
from rollway_testing.waiting import eventually

RECEIVERS: Final[dict[str, dict[str, Any]]] = {
    "well": {"type": "webhook"},
    "chat": {"type": "slack", "events": ["Stalled"]},
    "elsewhere": {"type": "webhook", "namespaces": ["another"]},
    "erring": {"type": "webhook"},
    "throttling": {"type": "webhook"},
    "slow": {"type": "webhook"},
    "down": {"type": "webhook"},
    "missing": {"type": "webhook"},
}


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    """All that answer at all."""
    answers: dict[str, list[tuple[int, dict[str, str]]]] = {
        "erring": [(500, {}), (503, {})],
        "throttling": [(429, {"Retry-After": "1"})],
    }
    with Receivers(answers, hanging={"slow"}) as running:
        yield running


@pytest.fixture
def operator(
    plane: ControlPlane, registry: str, alone: None, namespace: str, receivers: Receivers, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """One that serves the test's namespace alone, and tells all of them."""
    addresses = {name: receivers.address(name) for name in RECEIVERS if name != "missing"}
    addresses["down"] = f"http://127.0.0.1:{free_port()}/down/{receivers.secret}"
    settings = receivers.settings(
        tmp_path, *({"name": name} | more for name, more in RECEIVERS.items()), addresses=addresses
    )
    process = OperatorProcess(
        tmp_path, plane.kubeconfig, namespace=namespace, serves=namespace, resync=1, more=settings
    )
    yield process.start()
    process.stop()


def counted(operator: OperatorProcess, receiver: str, result: str) -> float:
    return operator.metric(f'rollway_operator_notifications_total{{receiver="{receiver}",result="{result}"}}')


def test_each_receiver_is_told_in_its_own_time_and_no_rollout_waits_for_any(
    operator: OperatorProcess, receivers: Receivers, story: Story, model: RegisteredModel
) -> None:
    # Given receivers of which four take nothing, for now or for ever, a model is served, replaced and broken.
    story.ask()
    story.until_serving("1")
    model.point(model.add_version())
    story.until_serving("2")
    broken = model.add_version()
    story.kubelet.natures[broken] = Nature.BROKEN
    model.point(broken)
    story.until(lambda status: bool(condition(status, "Stalled")), "the broken version is refused")

    # Then everybody that can be told was told everything, once and in order.
    events = ["Promoted", "Promoted", "Stalled"]
    for name in ("well", "erring", "throttling"):
        eventually(partial(receivers.told, name), lambda told: told == events, within=60, what=name)
    ids = [post.id for post in receivers.posts["well"]]
    assert ids == [post.body["id"] for post in receivers.posts["well"]]
    assert len(set(ids)) == 3
    for name in ("erring", "throttling"):
        assert [post.id for post in receivers.posts[name] if post.answer == 200] == ids
        assert {post.id for post in receivers.posts[name] if post.answer != 200} == {ids[0]}
    eventually(lambda: receivers.posts["chat"], within=30, what="the chat is told")
    (text,) = [post.body["text"] for post in receivers.posts["chat"]]
    assert text.startswith(f"*Stalled* {story.namespace}/iris")
    assert f"rollway.dev/retry={story.status()['model']['closed']['revision']}`" in text
    assert not receivers.posts["elsewhere"]

    # And no pass failed or was repeated for it: those that wait hold nothing up.
    assert operator.metric('rollway_operator_reconcile_total{result="error"}') == 0
    assert counted(operator, "well", "sent") == counted(operator, "erring", "sent") == 3
    assert counted(operator, "erring", "retried") == 2
    assert counted(operator, "throttling", "retried") == 1
    assert operator.metric("rollway_operator_notifications_queued") == 9

    # And one who ends the operator does not wait for them either; what is lost is counted in the log.
    assert operator.terminate() == 0
    logged = [line["message"] for line in operator.logged() if "webhooks" in line["logger"]]
    for name in ("slow", "down", "missing"):
        lost = [line for line in logged if line.startswith(f"receiver {name}: ") and " is dropped: " in line]
        assert len(lost) == 3
    assert (
        "receiver missing: key url of Secret hook-missing is not there: nothing is sent until it is" in logged
    )

    # And no secret is in the log, at DEBUG and after every kind of failure.
    assert receivers.secret not in operator.log.read_text()


def test_an_operator_that_is_killed_and_begun_anew_tells_nothing_twice(
    operator: OperatorProcess, receivers: Receivers, story: Story, model: RegisteredModel
) -> None:
    story.ask()
    story.until_serving("1")
    eventually(lambda: receivers.told("well"), within=30, what="the promotion is told")
    operator.kill()
    operator.start()
    model.point(model.add_version())
    story.until_serving("2")
    eventually(lambda: len(receivers.told("well")) >= 2, within=30, what="the next promotion is told")
    assert receivers.told("well") == ["Promoted", "Promoted"]
    assert [post.body["subject"]["version"] for post in receivers.posts["well"]] == ["1", "2"]
