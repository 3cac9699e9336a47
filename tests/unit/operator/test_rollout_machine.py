"""What must hold whatever happens, in whatever order: a state machine of registry, users, kubelet and kills."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rollway_testing.world import BEFORE_TRAFFIC, RUNTIME, Nature, World

VERSIONS = ("1", "2", "3", "4")
VERBS = ("abort", "undo", "pause", "promote", "retry", "restart", "resume", "ack")
NATURES = sorted({Nature.GOOD, Nature.UNFETCHABLE} | BEFORE_TRAFFIC)  # nothing here judges what callers get
JUNK = ("notjson", "[]", "x" * 200_000, "")


class RolloutMachine(RuleBasedStateMachine):
    """Drives a World; version 1 is good, so that something can serve."""

    @initialize(
        natures=st.tuples(*[st.sampled_from(NATURES)] * 3),
        replicas=st.integers(1, 3),
        recreate=st.booleans(),
        served=st.lists(st.sampled_from(VERSIONS), max_size=3),
    )
    def begin(self, natures: tuple[Nature, ...], replicas: int, recreate: bool, served: list[str]) -> None:
        if recreate or served[:1] != ["1"]:
            # A signature is compared with that of a server that runs: the first version has none to be compared with.
            natures = tuple(Nature.GOOD if one is Nature.INCOMPATIBLE else one for one in natures)
        self.world = World(natures=dict(zip(VERSIONS, (Nature.GOOD, *natures), strict=True)))
        strategy: dict[str, Any] = {"strategy": {"recreate": {}}} if recreate else {}
        self.world.edit(predictor={"replicas": replicas}, progressDeadlineSeconds=20, **strategy)
        self.recreate = recreate
        self.said = 0
        for version in served:
            self.world.target = version
            self.world.settle()

    # ------------------------------------------------------------------------------------------ what happens

    @rule(version=st.sampled_from(VERSIONS))
    def alias_moves(self, version: str) -> None:
        self.world.target = version

    @rule(reason=st.sampled_from([None, "RegistryUnreachable", "AliasNotFound", "RegistryNotPermitted"]))
    def registry_fails_or_recovers(self, reason: str | None) -> None:
        self.world.trouble = reason

    @rule(replicas=st.integers(1, 3), timeout=st.sampled_from(["10s", "20s"]))
    def spec_changes(self, replicas: int, timeout: str) -> None:
        self.world.edit(predictor={"replicas": replicas, "timeout": timeout})

    @rule(paused=st.booleans())
    def spec_is_paused_or_not(self, paused: bool) -> None:
        self.world.edit(paused=paused)

    @rule(policy=st.sampled_from(["Automatic", "Manual"]))
    def update_policy_changes(self, policy: str) -> None:
        self.world.edit(model={"name": "fraud", "alias": "champion", "updatePolicy": policy})

    @rule(image=st.sampled_from(["0", "1"]))
    def the_runtime_gets_an_image(self, image: str) -> None:
        self.world.runtimes["mlserver"] = replace(RUNTIME, image=f"rollway/mlserver@sha256:{image * 64}")

    @rule(verb=st.sampled_from(VERBS), choice=st.integers(0, 5))
    def a_person_says(self, verb: str, choice: int) -> None:
        status = self.world.status
        names = [
            status.get("stable", {}).get("revision"),
            status.get("canary", {}).get("revision"),
            status.get("model", {}).get("targetRevision"),
            *sorted(revision.name for revision in self.world.observed().revisions),
        ]
        known = [name for name in names if name]
        if known:
            self.said += 1
            self.world.say(verb, known[choice % len(known)], f"n{self.said}")

    @rule(verb=st.sampled_from(VERBS), text=st.sampled_from(JUNK))
    def annotations_are_poisoned(self, verb: str, text: str) -> None:
        self.world.annotations[f"rollway.dev/{verb}"] = text

    @rule(forgery=st.sampled_from(["all", "stable", "name", "digest"]))
    def the_status_is_wiped_or_forged(self, forgery: str) -> None:
        status = dict(self.world.status)
        stable = status.pop("stable", None)
        if stable and forgery == "name":
            status["stable"] = {**stable, "revision": "fraud-00000000"}
        if stable and forgery == "digest":
            status["stable"] = {**stable, "digest": "sha256:" + "f" * 64}
        if not stable and forgery != "all":
            return
        self.world.status = {} if forgery == "all" else status
        traffic = self.world.serving
        self.pass_runs()
        assert self.world.serving == traffic

    @rule(choice=st.integers(0, 5), digest=st.sampled_from([None, "sha256:" + "f" * 64]))
    def a_canary_is_made_up(self, choice: int, digest: str | None) -> None:
        known = self.world.observed().revisions
        if known and "stable" in self.world.status:
            made_up = known[choice % len(known)]
            canary = {"revision": made_up.name, "version": made_up.version}
            status = dict(self.world.status)
            self.world.status = {**status, "canary": canary | ({"digest": digest} if digest else {})}

    @rule()
    def pass_runs(self) -> None:
        world, before = self.world, self.world.status
        decided = world.plan()
        world.reconcile()
        if "StateRebuilt" not in [event.reason for event in decided.events]:
            self.nothing_starts_that_should_not(before, decided.status)

    @rule(seconds=st.integers(1, 12))
    def a_while_goes_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.pass_runs()
            self.world.tick()
            self.only_good_versions_are_ever_served()
            self.what_serves_keeps_its_pods()

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
        world.edit(paused=False, model={"name": "fraud", "alias": "champion"})
        for _ in range(5):
            world.settle()
            # What a person closed only a person opens; what a person paused only a person resumes.
            self.said += 1
            model, stable = world.status["model"], world.status.get("stable", {}).get("revision")
            world.say("resume", stable or model["targetRevision"], f"n{self.said}")
            if "closed" in model:
                world.say("retry", model["closed"]["revision"], f"n{self.said}")
            elif world.served_version == "1":
                break
        world.settle()
        assert world.served_version == "1"
        assert {pod.revision for pod in world.pods} == {world.serving}
        assert "canary" not in world.status
        assert world.condition("Ready")["status"] == "True"  # type: ignore[index]
        assert world.condition("Paused") is None
        world.now += timedelta(days=1)
        assert world.reconcile() == 0

    # --------------------------------------------------------------------------------------- what must hold

    def nothing_starts_that_should_not(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Compare the status before and after a pass that was not interrupted."""
        spec = self.world.spec
        handled = {
            verb
            for verb, value in after.get("lastHandled", {}).items()
            if before.get("lastHandled", {}).get(verb) != value
        }
        started = after.get("canary", {}).get("revision")
        if started == before.get("canary", {}).get("revision"):
            started = None
        model, now = before.get("model", {}), after["model"]
        closed = model.get("closed", {}).get("revision")
        if started and started == closed and not handled & {"retry", "undo", "restart"}:
            assert model["targetVersion"] != now["targetVersion"], "a closed target started again by itself"
        held = spec.get("paused") or (after["pausedByVerb"] and before.get("pausedByVerb"))
        if held and not (self.recreate and "canary" in before):
            assert not started, "something started while paused"
            assert before.get("stable", {}).get("revision") == after.get("stable", {}).get("revision")
        manual = spec["model"].get("updatePolicy") == "Manual"
        if started and manual and "stable" in before:
            stored = {revision.name: revision for revision in self.world.observed().revisions}
            another = stored[started].key != stored[before["stable"]["revision"]].key
            let_go = model.get("approvedRevision") == started or handled & {"promote", "retry", "undo"}
            instead = stored.get(now.get("closed", {}).get("instead"))
            undoing = instead is not None and instead.key == stored[started].key
            assert not another or let_go or undoing, "a version started that waits for a person"

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

    @invariant()
    def status_is_bounded(self) -> None:
        if hasattr(self, "world"):
            assert len(str(self.world.status)) < 20_000


RolloutMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestRollouts = RolloutMachine.TestCase
