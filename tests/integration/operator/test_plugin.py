"""`kubectl rollway` and the operator understand each other."""

import json
from typing import Any

from rollway_testing.controlplane import ControlPlane
from rollway_testing.plugin import Plugin
from rollway_testing.stories import OperatorProcess, RegisteredModel, Story


def test_a_person_steers_by_the_plugin(
    operator: OperatorProcess, plane: ControlPlane, story: Story, model: RegisteredModel
) -> None:
    plugin = Plugin(plane.kubeconfig)

    def said(*words: str) -> tuple[int, str]:
        done = plugin.run(*words, "-n", story.namespace)
        return done.returncode, done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def read(command: str) -> Any:
        return json.loads(plugin.run(command, "iris", "-n", story.namespace, "-o", "json").stdout)

    story.ask(strategy={"rollingUpdate": {}})
    first = story.until_serving("1")["stable"]["revision"]
    assert said("wait", "iris", "--version", "1") == (0, f"v1 serves ({first})")
    assert said("pause", "iris") == (0, "nothing starts or takes over until resume")
    code, why = said("wait", "iris", "--for", "settled")
    assert code == 0
    assert why.startswith("PausedByVerb: ")
    assert said("resume", "iris") == (0, "nothing holds any more")
    assert said("promote", "iris") == (1, "Error: the operator did nothing: ignored: nothing holds it")
    assert said("abort", "iris") == (1, "Error: nothing of iris is on its way")
    assert said("undo", "iris") == (1, f"Error: no revision of iris that served before {first} is kept")

    model.point(model.add_version())
    second = story.until_serving("2")["stable"]["revision"]
    assert [(entry["revision"], entry["now"]) for entry in read("history")] == [
        (second, "stable"),
        (first, "kept, served"),
    ]
    code, told = said("undo", "iris")
    assert (code, told) == (0, "v1 is brought up, then it takes over from v2")
    story.until_serving("1")
    target = read("resolve")
    assert (target["targetVersion"], target["serves"], target["closed"]["reason"]) == ("2", False, "Undone")
    assert said("wait", "iris", "--for", "settled")[0] == 0
    code, why = said("wait", "iris", "--version", "2", "--timeout", "5s")
    assert code == 1
    assert why.startswith("Error: v2 is closed (Undone)")
    assert said("retry", "iris") == (0, "v2 may be tried again")
    story.until_serving("2")
