"""How answers of an API server become exit codes and words."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from kubectl_rollway import apiserver
from kubectl_rollway.apiserver import ApiServer
from kubectl_rollway.cluster import Complaint
from kubectl_rollway.errors import PluginError
from kubectl_rollway.kubeconfig import Access
from rollway_testing.fake_cluster import at_rest

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ApiServer]:
    """Make an API server that answers by a function."""

    def make(answer: Answer, **access: Any) -> ApiServer:
        made = Access(server="https://here:6443/prefix", namespace="team-a", **access)

        def client(_: Access, timeout: float) -> httpx.Client:
            return httpx.Client(transport=httpx.MockTransport(answer), timeout=timeout)

        monkeypatch.setattr(apiserver, "_client", client)
        return ApiServer(made, 1.0)

    return make


def status(code: int, message: str, **more: Any) -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "message": message, **more})


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        (status(401, "Unauthorized"), 5, "https://here:6443/prefix does not accept the credentials"),
        (
            status(403, 'modeldeployments is forbidden: User "u" cannot get', reason="Forbidden"),
            5,
            'User "u" cannot get',
        ),
        (status(404, 'modeldeployments "x" not found', details={"name": "x"}), 3, '"x" not found'),
        (
            status(404, "the server could not find the requested resource", details={}),
            5,
            "is Rollway installed there?",
        ),
        (status(409, "the object has been modified"), 1, "has been modified"),
        (status(422, "is invalid", details={"causes": []}), 1, "is invalid"),
        (status(403, "admission webhook denied the request", reason="Forbidden"), 1, "webhook denied"),
        (status(429, "too many"), 5, "too many"),
        (status(503, "etcd is away"), 5, "etcd is away"),
        (httpx.Response(200, text="<html>"), 5, "does not answer as an API server does (HTTP 200)"),
        (
            httpx.Response(302, headers={"Location": "https://login"}),
            5,
            "does not answer as an API server does",
        ),
        (httpx.Response(200, json=[]), 5, "does not answer as an API server does"),
    ],
)
def test_an_answer_that_is_no_success_has_its_exit_code(
    server: Callable[..., ApiServer], answer: httpx.Response, exit_code: int, words: str
) -> None:
    with pytest.raises(PluginError) as raised:
        server(lambda _: answer).deployment("team-a", "x")
    assert raised.value.exit_code == exit_code
    assert words in raised.value.message


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("?")]
)
def test_a_connection_that_fails_names_the_server(
    server: Callable[..., ApiServer], error: httpx.HTTPError
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(PluginError, match=r"cannot reach https://here:6443/prefix: .") as raised:
        server(fail).deployments(None)
    assert raised.value.exit_code == 5


def test_a_name_is_never_more_than_a_name(server: Callable[..., ApiServer]) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(200, json={})

    server(answer).deployment("team-a", "../../x?y")
    assert asked == ["/prefix/apis/rollway.dev/v1alpha1/namespaces/team-a/modeldeployments/..%2F..%2Fx%3Fy"]


def test_a_long_list_is_read_in_pages(server: Callable[..., ApiServer]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["limit"] == "500"
        more = {"a": "b", "b": ""}.get(request.url.params.get("continue", ""), "a")
        return httpx.Response(200, json={"metadata": {"continue": more}, "items": [{"n": more}]})

    assert server(answer).pods("team-a", "fraud") == [{"n": "a"}, {"n": "b"}, {"n": ""}]


@pytest.mark.parametrize(("renewable", "asked"), [(True, 2), (False, 1)])
def test_credentials_that_ended_are_made_again_once(
    server: Callable[..., ApiServer], renewable: bool, asked: int
) -> None:
    count = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return status(401, "Unauthorized")

    with pytest.raises(PluginError):
        server(answer, user={"tokenFile": "x"} if renewable else {}).deployments(None)
    assert count == asked


def test_a_verb_is_a_merge_patch_of_metadata_alone(server: Callable[..., ApiServer]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "PATCH"
        assert request.headers["content-type"] == "application/merge-patch+json"
        assert json.loads(request.content) == {"metadata": {"annotations": {"rollway.dev/ack": "a/1"}}}
        return httpx.Response(200, json={})

    server(answer).annotate("team-a", "fraud", {"rollway.dev/ack": "a/1"})


def test_a_manifest_is_checked_in_the_place_of_what_is_there(server: Callable[..., ApiServer]) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.params.get("dryRun")))
        if request.method == "GET":
            return httpx.Response(200, json={"metadata": {"resourceVersion": "7"}})
        assert json.loads(request.content)["metadata"]["resourceVersion"] == "7"
        causes = [{"field": "spec.model", "message": "immutable"}]
        return status(422, "is invalid", details={"name": "fraud", "causes": causes})

    assert server(answer).complaints(at_rest()) == [Complaint("spec.model", "immutable")]
    assert asked == [("GET", None), ("PUT", "All")]


def test_a_manifest_of_a_new_object_is_checked_as_one(server: Callable[..., ApiServer]) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(
            (request.method, request.url.params.get("dryRun"), request.url.params.get("fieldValidation"))
        )
        if request.method == "GET":
            return status(404, "not found", details={"name": "fraud"})
        return httpx.Response(201, json={})

    assert server(answer).complaints(at_rest()) == []
    assert asked == [("GET", None, None), ("POST", "All", "Strict")]


def test_certificates_that_are_none_are_named() -> None:
    access = Access(server="https://here", namespace="a", authority=b"no certificate")
    with pytest.raises(PluginError, match="certificates cannot be used"):
        ApiServer(access, 1.0).deployments(None)


def test_a_proxy_that_is_none_is_named() -> None:
    with pytest.raises(PluginError, match="proxy-url cannot be used"):
        ApiServer(Access(server="https://here", namespace="a", proxy="gopher://x"), 1.0).deployments(None)
