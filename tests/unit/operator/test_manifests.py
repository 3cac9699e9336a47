"""What a revision's inputs become: the pod, its settings and the objects beside it."""

from dataclasses import replace
from typing import Any

from rollway_operator import manifests
from rollway_operator.api.v1alpha1 import ModelDeployment
from rollway_operator.domain import ArtifactSource, ModelVersion, Runtime, StoredRevision
from rollway_testing.world import RUNTIME, SOURCE

VERSION = ModelVersion("fraud", "3", "run3", "s3://models/fraud/3")


def deployment(**spec: Any) -> ModelDeployment:
    return ModelDeployment.of(
        {
            "metadata": {"name": "fraud", "namespace": "team-a", "uid": "u"},
            "spec": {"model": {"name": "fraud", "alias": "champion"}} | spec,
        }
    )


def revision(runtime: Runtime = RUNTIME, source: ArtifactSource = SOURCE, **spec: Any) -> StoredRevision:
    made = deployment(**spec)
    return manifests.new_revision(made, manifests.inputs(made, VERSION, source, runtime), runtime, ())


def fetch_of(made: StoredRevision) -> dict[str, Any]:
    [fetch] = made.template["spec"]["initContainers"]
    return dict(fetch)


def server_of(made: StoredRevision) -> dict[str, Any]:
    [server] = made.template["spec"]["containers"]
    return dict(server)


def environment(made: StoredRevision) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in fetch_of(made)["env"]}


# ----------------------------------------------------------------------------------------------- the runtime's


def test_a_runtime_that_gives_only_what_it_must_adds_nothing_to_the_pod() -> None:
    made = revision()
    assert "imagePullSecrets" not in made.template["spec"]
    assert not {"command", "lifecycle"} & server_of(made).keys()
    assert "limits" not in made.settings
    assert made.template["spec"]["terminationGracePeriodSeconds"] == 5 + 30 + 5


def test_what_a_runtime_adds_reaches_the_pod_and_the_server() -> None:
    runtime = replace(
        RUNTIME,
        server_command=("seldon-core-microservice", "Model"),
        pre_stop_seconds=10,
        image_pull_secrets=("mirror",),
        limits={"maxBodyBytes": 2048},
    )
    made = revision(runtime)
    assert made.template["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    assert made.template["spec"]["terminationGracePeriodSeconds"] == 10 + 5 + 30 + 5
    assert server_of(made)["command"] == ["seldon-core-microservice", "Model"]
    assert server_of(made)["lifecycle"] == {"preStop": {"sleep": {"seconds": 10}}}
    assert made.settings["limits"] == {"maxBodyBytes": 2048}


def test_the_environment_is_compared_and_told_unless_somebody_chose_otherwise() -> None:
    assert environment(revision())["ROLLWAY_ENVIRONMENT_POLICY"] == "Warn"
