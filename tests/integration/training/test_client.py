"""The client against a real model server: what it prints is what the model answers, and it counts what fails."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollway_testing.models import regressor
from rollway_testing.processes import Server, free_port

_SERVING = Path(__file__).parents[3] / "model/serving/src"


class ModelServer(Server):
    """A model pod's server for version 7 of a model."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._http, self._grpc, self._metrics = free_port(), free_port(), free_port()
        self.artifact = regressor(path / "model", 1)
        settings = {
            "name": "fraud",
            "namespace": "team-a",
            "revision": "fraud-7c9f12ab",
            "modelName": "fraud-detector",
            "version": "7",
            "timeoutSeconds": 30.0,
            "smokeTest": {"source": "InputExample"},
            "warmup": {"requests": 1},
            "drainSeconds": 0.5,
            "httpPort": self._http,
            "grpcPort": self._grpc,
            "metricsPort": self._metrics,
        }
        (path / "settings.json").write_text(json.dumps(settings))

    @property
    def flags(self) -> list[str]:
        """The client's flags that name this server."""
        return [
            *("--http", f"http://127.0.0.1:{self._http}", "--grpc", f"127.0.0.1:{self._grpc}"),
            *("--model", "fraud"),
        ]

    @property
    def health_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self._http}/v2/models/fraud/ready"]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "rollway_serving.mlserver_runtime"]

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "PYTHONPATH": str(_SERVING),
            "ROLLWAY_CONFIG_DIR": str(self.path),
            "ROLLWAY_MODEL_DIR": str(self.path / "model"),
            "ROLLWAY_TERMINATION_LOG": str(self.path / "termination-log"),
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with ModelServer(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture
def answers(server: ModelServer) -> list[float]:
    """What the served model says to each held-out row, computed in this process."""
    return [answer for [answer] in server.artifact.answers]


def test_every_protocol_gives_the_models_own_answers(
    program: Any, server: ModelServer, answers: list[float]
) -> None:
    ended = program.run("rollway_training.client", "predict", *server.flags)
    assert ended.code == 0, ended.told
    assert [line["protocol"] for line in ended.lines] == ["rest-v2", "grpc-v2", "invocations"]
    for line in ended.lines:
        assert (line["version"], line["revision"]) == ("7", "fraud-7c9f12ab")
        assert line["outputs"] == pytest.approx(answers)


def test_load_asks_in_all_four_ways_and_says_who_answered_what(
    program: Any, server: ModelServer, answers: list[float]
) -> None:
    ended = program.run("rollway_training.client", "load", *server.flags, "--rate", "40", "--seconds", "2")
    assert ended.code == 0, ended.told
    *records, last = ended.lines
    assert len(records) == last["summary"]["sent"] == 80
    assert last["summary"]["failed"] == 0
    assert last["summary"]["answered_by_version"] == {"7": 80}
    assert {record["mode"] for record in records} == {
        "rest-kept-alive",
        "rest-fresh",
        "grpc-kept-alive",
        "grpc-fresh",
    }
    for record in records:
        assert record["model_version"] == record["version"] == "7"
        assert record["outputs"] == pytest.approx([answers[record["row"]]])


def test_load_goes_on_until_it_is_told_to_stop(program: Any, server: ModelServer) -> None:
    command = program.command("rollway_training.client", "load", *server.flags)
    with subprocess.Popen(command, env=program.environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGTERM)
        last = json.loads(running.stdout.read().splitlines()[-1])
        assert running.wait() == 0
    assert first["failed"] is False
    assert last["summary"]["failed"] == 0


def test_a_server_that_is_gone_is_counted_and_not_retried(program: Any) -> None:
    nobody = ["--http", f"http://127.0.0.1:{free_port()}", "--grpc", f"127.0.0.1:{free_port()}"]
    ended = program.run(
        *("rollway_training.client", "load", *nobody, "--model", "fraud", "--rate", "20", "--seconds", "0.4")
    )
    assert ended.code == 1
    *records, last = ended.lines
    assert last["summary"]["failed"] == len(records) == 8
    assert {record["status"] for record in records} == {"ERROR", "UNAVAILABLE"}


def test_a_refusal_is_shown_with_the_servers_own_words(program: Any, server: ModelServer) -> None:
    flags = [*server.flags[:-1], "another"]
    ended = program.run("rollway_training.client", "predict", *flags)
    assert ended.code == 1
    rest, grpc, _ = ended.lines
    assert (rest["status"], grpc["status"]) == (404, "NOT_FOUND")
    assert rest["error"]
