"""Flags that do not fit together are refused before anything is asked or trained."""

import pytest

from rollway_training.__main__ import main

SERVER = ["--tracking-uri", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "--predict-fn", "predict_proba"], "needs a classifier"),
        (["train", "--estimator", "forest"], "needs --serialization cloudpickle"),
        (["train", "--estimator", "forest", "--regularization", "2"], "belongs to --estimator linear"),
        (["train", "--seed", "1"], "--seed belongs to --estimator forest"),
        (["train", "--regularization", "0"], "not a positive number"),
        (["train", "--sample", "iris"], "invalid choice: 'iris'"),
        (["promote"], "--model"),
        ([], "{train,register,promote,list}"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*SERVER, *arguments])
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_tracking_server_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit):
        main(["list"])
    assert "--tracking-uri or MLFLOW_TRACKING_URI" in capsys.readouterr().err
