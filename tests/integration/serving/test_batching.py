"""Requests that come at once share predictions, over every protocol, and each gets the answer that it gets alone."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import aio

from rollway_serving.errors import PredictionError
from rollway_serving.model import Model
from rollway_testing import models
from rollway_training.samples import held_out_rows

from .conftest import NewPod, Pod, Trained
from .runtimes import Seldon

Question = Callable[[Any], Coroutine[Any, Any, Any]]
ROWS = held_out_rows(models.SAMPLE)


class Clients:
    """Asks a pod over three protocols; an answer is a list, a refusal its sentence."""

    def __init__(self, pod: Pod, http: httpx.AsyncClient, channel: aio.Channel) -> None:
        self._runtime = pod.runtime
        self._http = http
        self._call = channel.unary_unary(pod.runtime.grpc_predict)

    async def v2_rest(self, rows: Any) -> Any:
        answer = await self._http.post(self._runtime.predict_path, json=self._runtime.request(rows))
        if answer.is_success:
            return self._runtime.answers(answer.json()).tolist()
        return f"{answer.status_code}: {self._runtime.error(answer.json())}"

    async def invocations(self, rows: Any) -> Any:
        answer = await self._http.post("/invocations", json={"inputs": np.asarray(rows).tolist()})
        body = answer.json()
        return body["predictions"] if answer.is_success else f"{answer.status_code}: {body['error']}"

    async def v2_grpc(self, rows: Any) -> Any:
        try:
            message = await self._call(self._runtime.grpc_request(rows), timeout=30)
        except grpc.RpcError as error:
            status = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.INTERNAL: 500}
            return f"{status[error.code()]}: {error.details()}"
        return self._runtime.grpc_answers(message).tolist()

    async def ask_at_once(self, requests: list[Any]) -> list[Any]:
        """Ask for all, each third of them over the same protocol."""
        questions: list[Question] = [self.v2_rest, self.invocations, self.v2_grpc]
        asked = [questions[i % 3](rows) for i, rows in enumerate(requests)]
        return list(await asyncio.gather(*asked))


async def ask_at_once(pod: Pod, requests: list[Any]) -> list[Any]:
    async with (
        httpx.AsyncClient(base_url=pod.http, trust_env=False, timeout=30) as http,
        aio.insecure_channel(pod.grpc) as channel,
    ):
        return await Clients(pod, http, channel).ask_at_once(requests)


def calls(pod: Pod) -> tuple[int, int]:
    """How often the model was called and gave an answer, and for how many rows in all."""
    text = httpx.get(pod.metrics, trust_env=False).text
    count, total = (
        re.search(rf"^rollway_inference_batch_rows_{what} (\S+)$", text, re.MULTILINE)
        for what in ("count", "sum")
    )
    assert count
    assert total
    return int(float(count[1])), int(float(total[1]))


async def test_requests_that_come_at_once_share_predictions(
    new_pod: NewPod, array_model: Trained, frame_model: Trained
) -> None:
    """Of probabilities and of labels; who asks wrong is told so, and the others do not notice."""
    for model in (array_model, frame_model):
        pod = new_pod(model.folder, batching={"maxBatchSize": 16, "maxLatencySeconds": 0.3})
        await asyncio.to_thread(pod.serve_until_ready)
        assert calls(pod) == (0, 0)
        frame = model.rows
        good = [frame[i : i + 1 + i % 3] for i in range(0, 90, 2)]
        requests = [*good, *(rows.iloc[:, :29] for rows in good[:6])]
        answers = await ask_at_once(pod, requests)
        for rows, answer in zip(good, answers, strict=False):
            if model is frame_model:
                assert answer == model.estimator.predict(rows).tolist()
            else:
                expected = model.estimator.predict_proba(rows.to_numpy())
                assert np.allclose(answer, expected, rtol=1e-9, atol=1e-9)
        refused = answers[len(good) :]
        assert all(answer.startswith("400: ") and "expected" in answer for answer in refused), refused
        made, rows_in_all = calls(pod)
        assert rows_in_all == sum(map(len, good))
        assert rows_in_all / 16 <= made < len(good)
        assert "requests share predictions of at most 16 rows" in pod.log


async def test_what_waits_for_a_slow_model_goes_together(new_pod: NewPod, tmp_path: Path) -> None:
    artifact = models.slow(tmp_path / "model", 1, 0.5)
    pod = new_pod(artifact.folder, batching={"maxBatchSize": 8})
    await asyncio.to_thread(pod.serve_until_ready)
    answers = await ask_at_once(pod, [ROWS[i : i + 1] for i in range(20)])
    assert answers == [[pytest.approx(answer, rel=1e-12)] for (answer,) in artifact.answers[:20]]
    made, rows_in_all = calls(pod)
    assert rows_in_all == 20
    assert 3 <= made < 20


async def test_where_a_model_fails_on_a_row_the_requests_beside_it_are_answered(
    new_pod: NewPod, tmp_path: Path
) -> None:
    artifact = models.erroring(tmp_path / "model", 1, 0.2)
    pod = new_pod(artifact.folder, batching={"maxBatchSize": 8, "maxLatencySeconds": 0.2})
    await asyncio.to_thread(pod.serve_until_ready)
    expected: list[Any] = []
    model = Model.load(artifact.folder)
    for i in range(30):
        try:
            model.predict(ROWS[i : i + 1])
        except PredictionError as error:
            expected.append(f"500: {error}")
        else:
            expected.append([pytest.approx(artifact.answers[i][0], rel=1e-12)])
    assert await ask_at_once(pod, [ROWS[i : i + 1] for i in range(30)]) == expected
    assert "they are tried one by one" in pod.log


async def test_requests_that_wait_together_at_sigterm_are_answered(new_pod: NewPod, tmp_path: Path) -> None:
    artifact = models.slow(tmp_path / "model", 1, 1.0)
    pod = new_pod(artifact.folder, batching={"maxBatchSize": 4}, drainSeconds=0.2)
    process = await asyncio.to_thread(pod.serve_until_ready)
    asked = asyncio.create_task(ask_at_once(pod, [ROWS[i : i + 1] for i in range(9)]))
    while True:
        text = (await asyncio.to_thread(httpx.get, pod.metrics, trust_env=False)).text
        waiting = re.search(r"^rollway_inference_queue_depth (\S+)$", text, re.MULTILINE)
        if waiting and float(waiting[1]) >= 4:
            break
    process.terminate()
    assert await asked == [[pytest.approx(answer, rel=1e-12)] for (answer,) in artifact.answers[:9]]
    assert await asyncio.to_thread(process.wait, 30) == 0
    assert pod.termination == {}


def test_a_runtime_that_does_not_batch_says_so_instead_of_ignoring_it(
    new_pod: NewPod, array_model: Trained
) -> None:
    pod = new_pod(array_model.folder, runtime=Seldon(), batching={"maxBatchSize": 32})
    message = pod.end_unready()
    assert message["reason"] == "ModelLoadFailed"
    assert "the revision's settings cannot be used: batching: " in message["message"]
