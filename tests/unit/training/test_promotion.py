"""A version takes the alias unless the champion is better on the same rows."""

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from rollway_training.registry import judge

METRIC = "held_out_rmse"


def version(number: int, rmse: float, digest: str = "sha256:a") -> ModelVersion:
    tags = {"task": "regression", "data_digest": digest, METRIC: repr(rmse)}
    kept = [ModelVersionTag(key, value) for key, value in tags.items()]  # type: ignore[no-untyped-call]
    return ModelVersion("m", str(number), 0, tags=kept)


def test_the_first_version_has_nobody_to_beat() -> None:
    verdict = judge(version(1, 53.5), None, "champion")
    assert verdict.promoted
    assert verdict.reason == f"{METRIC} 53.5; nothing holds the alias yet"


def test_a_better_version_is_promoted_with_both_numbers() -> None:
    verdict = judge(version(2, 52.25), version(1, 53.5), "champion")
    assert verdict.promoted
    assert verdict.reason == f"{METRIC} 52.25 is not worse than version 1's 53.5"
    assert (verdict.value, verdict.champion_value) == (52.25, 53.5)


def test_an_equal_version_is_not_worse() -> None:
    assert judge(version(2, 53.5), version(1, 53.5), "champion").promoted


def test_a_worse_version_is_refused_with_both_numbers() -> None:
    verdict = judge(version(2, 53.75), version(1, 53.5), "champion")
    assert not verdict.promoted
    assert verdict.reason == f"{METRIC} 53.75 is worse than version 1's 53.5"


def test_numbers_on_other_rows_are_not_compared() -> None:
    verdict = judge(version(2, 1.0, "sha256:b"), version(1, 53.5), "champion")
    assert not verdict.promoted
    assert "other rows" in verdict.reason
    assert verdict.champion_value is None
