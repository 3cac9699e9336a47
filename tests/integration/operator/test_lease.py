"""Replicas of the operator on a real API server: who leads, how soon another does, and what a frozen one still does."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollway_testing.controlplane import ControlPlane
from rollway_testing.kubernetes import Kubernetes
from rollway_testing.stories import OperatorProcess, Story, serves
from rollway_testing.waiting import eventually

TAKEOVER = 20.0
HANDOVER = 3.0
FROZEN = 25.0


def leads(operator: OperatorProcess) -> bool:
    return operator.metric("rollway_leader") == 1


def written(operator: OperatorProcess) -> float:
    kinds = ("ModelDeployment", "ControllerRevision", "ConfigMap", "Service", "Deployment", "Scale", "Event")
    return sum(operator.metric(f'rollway_operator_writes_total{{kind="{kind}"}}') for kind in kinds)


def taken_over(operator: OperatorProcess, within: float) -> float:
    """Wait until a replica leads; tell how long it took."""
    began = time.monotonic()
    eventually(lambda: leads(operator), within=within + 10, what="the other replica leads")
    took = time.monotonic() - began
    print(f"\ntaken over after {took:.1f} s")
    return took


@pytest.fixture
def replicas(
    plane: ControlPlane, api: Kubernetes, registry: str, alone: None, tmp_path: Path
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """Two replicas, running; the first leads."""
    first, second = (OperatorProcess(tmp_path / name, plane.kubeconfig) for name in ("first", "second"))
    try:
        first.start()
        eventually(lambda: leads(first), within=30, what="the first replica leads")
        second.start()
        yield first, second
    finally:
        first.stop()
        second.stop()


def test_one_works_and_the_other_takes_over_when_it_is_killed_or_stopped(
    replicas: tuple[OperatorProcess, OperatorProcess], story: Story
) -> None:
    first, second = replicas
    story.ask()
    story.until_serving("1")
    assert written(first) > 0
    assert not leads(second)
    assert written(second) == 0
    healthy = f'rollway_modeldeployment_phase{{name="iris",namespace="{story.namespace}",phase="Healthy"}}'
    eventually(lambda: first.metric(healthy) == 1, within=30, what="the leader tells of it")
    assert not any(sample.name.startswith("rollway_modeldeployment_") for sample in second.samples())
    assert second.metric('rollway_operator_registry_requests_total{registry="default",result="ok"}') == 0
    first.kill()
    assert taken_over(second, TAKEOVER) <= TAKEOVER
    eventually(lambda: second.metric(healthy) == 1, within=30, what="the new leader tells of it")
    first.start()
    story.ask(predictor={"replicas": 3})
    story.until(lambda status: status.get("readyReplicas") == 3, "the new leader works")
    assert not leads(first)
    assert written(first) == 0
    os.kill(second.pid, signal.SIGTERM)
    assert taken_over(first, HANDOVER) <= HANDOVER
    assert second.ended() == 0
    story.ask(predictor={"replicas": 1})
    story.until(lambda status: status.get("readyReplicas") == 1, "the first works again")


@pytest.mark.thorough
def test_a_leader_that_was_frozen_writes_nothing_afterwards_and_stands_by(
    replicas: tuple[OperatorProcess, OperatorProcess], story: Story
) -> None:
    first, second = replicas
    story.ask()
    story.until(lambda status: "canary" in status, "a roll-out is under way")
    before = written(first)
    os.kill(first.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        assert taken_over(second, TAKEOVER) <= TAKEOVER
        story.ask(predictor={"replicas": 2})
        story.until(
            lambda status: serves(status, "1") and status["readyReplicas"] == 2, "the new leader works"
        )
        eventually(lambda: time.monotonic() - frozen > FROZEN, within=FROZEN, what="frozen for long")
    finally:
        os.kill(first.pid, signal.SIGCONT)
    eventually(lambda: not leads(first), within=10, what="the old leader knows that it lost")
    resyncs = second.metric('rollway_operator_reconcile_total{result="ok"}')
    eventually(
        lambda: second.metric('rollway_operator_reconcile_total{result="ok"}') >= resyncs + 5,
        within=60,
        what="some more passes",
    )
    assert first.running
    # A write that was on its way when the process was frozen is counted when its answer is read.
    assert written(first) <= before + 3
    assert leads(second)


@pytest.mark.thorough
def test_without_the_lease_a_lone_operator_stands_by_and_begins_again(
    replicas: tuple[OperatorProcess, OperatorProcess], story: Story, api: Kubernetes
) -> None:
    first, second = replicas
    second.stop()
    story.ask()
    story.until_serving("1")
    lease = api.get("Lease", "rollway-operator", "default")
    assert lease is not None
    stolen = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 8, "leaseTransitions": 99}}
    api.patch("Lease", "rollway-operator", "default", stolen)
    eventually(lambda: not leads(first), within=10, what="the lease is lost")
    before = written(first)
    story.ask(predictor={"replicas": 2})
    eventually(lambda: leads(first), within=20, what="the thief's time is over")
    assert written(first) >= before
    story.until(lambda status: status.get("readyReplicas") == 2, "it works again")
