"""What must hold whatever happens, in whatever order: a state machine of registry, users, kubelet and kills."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rollway_testing.world import Nature, World

VERSIONS = ("1", "2", "3", "4")


class RolloutMachine(RuleBasedStateMachine):
    """Drives a World; version 1 is good, so that something can serve."""

    @initialize(
        natures=st.tuples(*[st.sampled_from(Nature)] * 3), replicas=st.integers(1, 3), recreate=st.booleans()
    )
    def begin(self, natures: tuple[Nature, ...], replicas: int, recreate: bool) -> None:
        self.world = World(natures=dict(zip(VERSIONS, (Nature.GOOD, *natures), strict=True)))
        strategy: dict[str, Any] = {"strategy": {"recreate": {}}} if recreate else {}
        self.world.edit(predictor={"replicas": replicas}, progressDeadlineSeconds=20, **strategy)
        self.recreate = recreate
        self.promoted: set[str] = set()

    @rule(version=st.sampled_from(VERSIONS))
    def alias_moves(self, version: str) -> None:
        self.world.target = version

    @rule(reason=st.sampled_from([None, "RegistryUnreachable", "AliasNotFound", "RegistryNotPermitted"]))
    def registry_fails_or_recovers(self, reason: str | None) -> None:
        self.world.trouble = reason

    @rule(replicas=st.integers(1, 3), timeout=st.sampled_from(["10s", "20s"]))
    def spec_changes(self, replicas: int, timeout: str) -> None:
        self.world.edit(predictor={"replicas": replicas, "timeout": timeout})

    @rule()
    def pass_runs(self) -> None:
        self.world.reconcile()

    @rule(writes=st.integers(0, 6))
    def operator_is_killed(self, writes: int) -> None:
        self.world.reconcile(writes)

    @rule(seconds=st.sampled_from([1, 1, 1, 5, 30]))
    def time_passes(self, seconds: int) -> None:
        self.world.tick(seconds)

    @rule()
    def the_world_heals_and_comes_to_rest(self) -> None:
        world = self.world
        world.trouble, world.target = None, "1"
        world.settle()
        assert world.served_version == "1"
        assert {pod.revision for pod in world.pods} == {world.serving}
        assert "canary" not in world.status
        assert world.condition("Ready")["status"] == "True"  # type: ignore[index]

    @invariant()
    def traffic_is_never_newly_pointed_at_a_revision_without_ready_pods(self) -> None:
        if hasattr(self, "world"):
            assert all(ready > 0 for _, ready in self.world.flips)

    @invariant()
    def only_good_versions_are_ever_served(self) -> None:
        if hasattr(self, "world") and self.world.served_version:
            assert self.world.natures[self.world.served_version] is Nature.GOOD

    @invariant()
    def what_serves_keeps_its_pods(self) -> None:
        if hasattr(self, "world") and self.world.serving and not self.recreate:
            assert self.world.replicas(self.world.serving) >= 1
            assert self.world.ready(self.world.serving) >= 1

    @invariant()
    def no_revision_has_more_pods_than_its_digest_allows(self) -> None:
        if not hasattr(self, "world"):
            return
        for (kind, name), live in self.world.objects.items():
            if kind == "Deployment" and live["spec"]["replicas"] > 1:
                assert self.world.objects[("ConfigMap", name)]["data"]["digest"]


RolloutMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRollouts = RolloutMachine.TestCase
