"""What must hold of every canary and blue-green rollout, whatever happens in whatever order.

Registry, users, callers, pods, the Gateway and kills act at random on a world in memory. A failure is printed as the
shortest script that replays it.
"""

import os
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollway_testing.world import BAD, BEFORE_TRAFFIC, Nature, World

HISTORIES = int(os.environ.get("ROLLWAY_HISTORIES", "2000"))
VERSIONS = ("1", "2", "3")
VERBS = ("abort", "undo", "pause", "promote", "promote-full", "retry", "restart", "resume")
PLANS: tuple[dict[str, Any], ...] = (
    {"canary": {"steps": [{"setWeight": 10}, {"pause": {"duration": "3s"}}, {"setWeight": 50}]}},
    {
        "canary": {
            "steps": [{"setWeight": 0}, {"pause": {}}, {"setWeight": 20}, {"pause": {"duration": "2s"}}]
        }
    },
    {"canary": {"steps": [{"pause": {"duration": "2s"}}, {"setWeight": 50}, {"setWeight": 100}]}},
    {"blueGreen": {"previewSeconds": 5, "scaleDownDelaySeconds": 3}},
    {"blueGreen": {"autoPromotion": False}},
)
ANALYSIS: Mapping[str, Any] = {
    "metrics": [
        {"name": "error-rate", "thresholdRange": {"max": "0.05"}, "minSamples": 10},
        {"name": "latency-p99", "thresholdRange": {"max": "1.5"}, "minSamples": 10},
    ]
}
OFTEN_GOOD = (Nature.GOOD, Nature.GOOD, Nature.GOOD, *Nature)


class CanaryMachine(RuleBasedStateMachine):
    """Drives a World in which version 1 is good and serves."""

    gateway = False

    @initialize(
        natures=st.tuples(*[st.sampled_from(OFTEN_GOOD)] * 2),
        replicas=st.integers(1, 4),
        plan=st.sampled_from(PLANS),
        rate=st.sampled_from([0, 5, 40]),
        manual=st.booleans(),
        named=st.sampled_from(VERSIONS),
    )
    def begin(
        self,
        natures: tuple[Nature, ...],
        replicas: int,
        plan: dict[str, Any],
        rate: int,
        manual: bool,
        named: str,
    ) -> None:
        natures_of = dict(zip(VERSIONS, (Nature.GOOD, *natures), strict=True))
        world = World(natures=natures_of, gateway=self.gateway)
        world.spec = {"model": {"name": "fraud", "alias": "champion"}, "predictor": {"replicas": replicas}}
        self.world, self.said, self.spoken = world, 0, False
        self.take(plan)
        if manual:
            world.edit(rollback={"mode": "Manual"})
        world.settle()
        world.rate, world.target = rate, named

    def take(self, plan: Mapping[str, Any]) -> None:
        spec = {key: value for key, value in self.world.spec.items() if key not in ("strategy", "analysis")}
        self.world.spec = spec | {"strategy": plan} | ({"analysis": ANALYSIS} if "canary" in plan else {})
        self.world.generation += 1

    # ------------------------------------------------------------------------------------------ what happens

    @rule(version=st.sampled_from(VERSIONS[1:]))
    def alias_moves(self, version: str) -> None:
        self.world.target = version

    @rule()
    def alias_moves_back(self) -> None:
        self.world.target = self.world.status["stable"]["version"]

    @rule(plan=st.sampled_from(PLANS))
    def the_plan_changes(self, plan: dict[str, Any]) -> None:
        self.take(plan)

    @rule(timeout=st.sampled_from(["10s", "20s"]), replicas=st.integers(1, 4))
    def the_pods_change(self, timeout: str, replicas: int) -> None:
        self.world.edit(predictor={"replicas": replicas, "timeout": timeout})

    @rule(least=st.integers(1, 3), on=st.booleans())
    def autoscaling_is_switched(self, least: int, on: bool) -> None:
        predictor = {
            key: value for key, value in self.world.spec["predictor"].items() if key != "autoscaling"
        }
        scaling = {"autoscaling": {"minReplicas": least, "maxReplicas": 4}} if on else {}
        self.world.edit(predictor=predictor | scaling)

    @rule(paused=st.booleans())
    def spec_is_paused_or_not(self, paused: bool) -> None:
        self.world.edit(paused=paused)

    @rule(rate=st.sampled_from([0, 1, 40]), malformed=st.sampled_from([0, 10]))
    def callers_come_and_go(self, rate: int, malformed: int) -> None:
        self.world.rate, self.world.client_errors = rate, malformed

    @rule(verb=st.sampled_from(VERBS), choice=st.integers(0, 4))
    def a_person_says(self, verb: str, choice: int) -> None:
        status = self.world.status
        names = [
            status.get("canary", {}).get("revision"),
            status.get("stable", {}).get("revision"),
            *sorted(revision.name for revision in self.world.observed().revisions),
        ]
        known = [name for name in names if name]
        self.said += 1
        self.spoken = True
        self.world.say(verb, known[choice % len(known)], f"n{self.said}")

    @rule()
    def the_status_is_wiped(self) -> None:
        self.step()  # what a person changed just now may change the traffic
        before = self.world.shares()
        self.world.status = {}
        self.step()
        after = self.world.shares()
        assert after == before, f"a lost status changed the traffic from {before} to {after}"

    @rule(writes=st.integers(0, 6))
    def operator_is_killed(self, writes: int) -> None:
        self.world.reconcile(writes)
        self.world.forget()

    @rule(seconds=st.integers(1, 20))
    def a_while_goes_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step()
            self.world.tick()
            self.what_always_holds()

    @rule()
    def a_pass_runs(self) -> None:
        self.step()

    @rule()
    def much_time_passes(self) -> None:
        self.world.tick(30)

    def step(self) -> None:
        world, before = self.world, self.world.status
        world.reconcile()
        if before and "stable" in before and "StateRebuilt" not in world.events[-5:]:
            self.steps_go_forward(before, world.status)
            self.promotions_are_deserved(before, world.status)

    @precondition(lambda self: self.world.natures["2"] is Nature.GOOD)
    @rule()
    def the_world_heals_and_comes_to_its_end(self) -> None:
        world = self.world
        world.target, world.rate, world.client_errors = "2", 40, 0
        world.edit(paused=False)
        for _ in range(4):
            self.say_what_lets_it_go_on()
            if world.settles(120):
                break
        for _ in range(3):
            if world.served_version == "2" and "canary" not in world.status:
                break
            self.say_what_lets_it_go_on()
            world.settles(200)
        assert world.served_version == "2", world.status
        assert "canary" not in world.status
        world.rate = 0
        world.settle()
        assert world.reconcile() == 0, "an idle state writes"
        self.spoken = False

    def say_what_lets_it_go_on(self) -> None:
        world = self.world
        world.reconcile()
        status, self.said = world.status, self.said + 1
        stable, canary = status["stable"]["revision"], status.get("canary", {}).get("revision")
        world.say("resume", stable, f"n{self.said}")
        if closed := status["model"].get("closed"):
            world.say("retry", closed["revision"], f"n{self.said}")
        elif canary and world.condition("Paused"):
            world.say("promote", canary, f"n{self.said}")

    # --------------------------------------------------------------------------------------- what must hold

    def steps_go_forward(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """The weight of a candidate goes up only, but for a failure that is held and for another strategy."""
        old, new = before.get("canary"), after.get("canary")
        if old and new and old["revision"] == new["revision"] and "canary" in self.world.spec["strategy"]:
            if old.get("weight", 0) > new.get("weight", 0):
                assert "held" in new, f"weight went from {old} to {new}"
            if old.get("steps") == new.get("steps") and "held" not in old:
                assert new.get("currentStepIndex", 0) >= old.get("currentStepIndex", 0), (
                    "a step was made twice"
                )

    def promotions_are_deserved(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """No bad version takes over, and no canary without proof, unless a person said so."""
        if self.spoken:
            return
        if "promoting" in after.get("canary", {}) and "promoting" not in before.get("canary", {}):
            proved = after.get("analysis", {}).get("phase") == "Successful"
            assert proved or "canary" not in self.world.spec["strategy"], (
                f"without proof: {after['analysis']}"
            )
        old, new = before["stable"]["revision"], after["stable"]["revision"]
        if old == new:
            return
        version = after["stable"]["version"]
        # Without a canary the gates are the verdict: nobody looks at what traffic does to a version.
        refused = BAD if "canary" in self.world.spec["strategy"] else BEFORE_TRAFFIC
        assert self.world.natures[version] not in refused, f"v{version} is {self.world.natures[version]}"

    @invariant()
    def what_always_holds(self) -> None:
        world = getattr(self, "world", None)
        if world is None or not world.status:
            return
        shares = [share["percent"] for share in world.status.get("traffic", [])]
        assert not shares or sum(shares) == 100
        assert all(ready > 0 for _, ready in world.flips), (
            "traffic was newly led to a revision without a ready pod"
        )
        # Who took over by its gates or by a person's word may be bad under traffic.
        if world.serving and world.natures[str(world.served_version)] not in BAD:
            assert world.ready(world.serving) >= 1, "stable has no ready pod"
        for name, share in world.shares().items():
            version = world.stored(name).version
            if share and world.natures[version] in BEFORE_TRAFFIC:
                assert self.spoken, f"v{version} ({world.natures[version]}) gets traffic"
        assert len(str(world.status)) < 20_000


class GatewayMachine(CanaryMachine):
    """The same behind a Gateway."""

    gateway = True


SETTINGS = settings(
    max_examples=HISTORIES // 2,
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
CanaryMachine.TestCase.settings = GatewayMachine.TestCase.settings = SETTINGS
TestByCounts = CanaryMachine.TestCase
TestBehindAGateway = GatewayMachine.TestCase
