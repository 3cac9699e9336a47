import asyncio
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from kubernetes.aio.client import Configuration

from rollway_operator import cluster as module
from rollway_operator.cluster import Cluster
from rollway_operator.errors import (
    ClusterError,
    ConflictError,
    EndingError,
    ForbiddenError,
    InvalidError,
    NotLeaderError,
)
from rollway_operator.telemetry import API_REQUESTS
from rollway_testing.clock import without_waiting

CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "iris", "namespace": "team-a", "uid": "u", "resourceVersion": "1"},
}


class Answer:
    """One answer of the API server."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.status, self.text, self.headers = status, json.dumps(body).encode(), headers or {}

    async def read(self) -> bytes:
        return self.text


class Server:
    """Stands where the kubernetes package's client does; keeps what was sent, and answers when it is told to."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.default_headers = {"User-Agent": "a test"}
        self.sent: list[str] = []
        self.accepted: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.time_outs: list[float] = []
        self.answers: list[Answer] = []
        self.delay = 0.0

    async def update_params_for_auth(self, headers: dict[str, str], *_: Any) -> None:
        headers["authorization"] = "Bearer secret"

    async def call_api(
        self, method: str, url: str, headers: dict[str, str], *_: Any, _request_timeout: Any
    ) -> Answer:
        self.accepted.append(headers["Accept"])
        address = urlsplit(url.removeprefix(self.configuration.host))
        self.sent.append(f"{method} {address.path}")
        self.queries.append(dict(parse_qsl(address.query)))
        self.time_outs.append(_request_timeout.total)
        await asyncio.sleep(self.delay)
        return self.answers.pop(0) if self.answers else Answer(200, CONFIG_MAP)


def connected(server: Server, left: float) -> Cluster:
    client: Any = server
    return Cluster(client, lambda: left)


WRITES = {
    "create": lambda cluster: cluster.create(CONFIG_MAP),
    "make": lambda cluster: cluster.make(CONFIG_MAP),
    "replace": lambda cluster: cluster.replace(CONFIG_MAP),
    "apply": lambda cluster: cluster.apply(CONFIG_MAP),
    "apply_status": lambda cluster: cluster.apply_status(CONFIG_MAP),
    "merge": lambda cluster: cluster.merge(CONFIG_MAP, {}),
    "merge_status": lambda cluster: cluster.merge_status(CONFIG_MAP, {}),
    "scale": lambda cluster: cluster.scale("team-a", "iris", 1),
    "delete": lambda cluster: cluster.delete("ConfigMap", "iris", "team-a", "u"),
}


def test_every_method_that_writes_is_in_the_list_above() -> None:
    reads = {"get", "list", "pages", "served"}
    assert {name for name in vars(Cluster) if not name.startswith("_")} == WRITES.keys() | reads


@pytest.mark.parametrize("write", WRITES)
async def test_without_the_lease_nothing_is_sent(write: str) -> None:
    server = Server()
    with pytest.raises(NotLeaderError):
        await WRITES[write](connected(server, 0.0))
    assert server.sent == []


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_may_take_what_remains_of_the_lease(write: str) -> None:
    server = Server()
    await WRITES[write](connected(server, 7.5))
    await WRITES[write](connected(server, 3600))
    assert server.time_outs == [7.5, 30]


async def test_a_standby_may_read() -> None:
    server = Server()
    assert await connected(server, 0.0).get("ConfigMap", "iris", "team-a") == CONFIG_MAP


@without_waiting
async def test_who_waited_for_a_place_in_the_rate_is_asked_again_before_the_write() -> None:
    server = Server()
    client: Any = server
    ends = asyncio.get_running_loop().time() + 2
    cluster = Cluster(client, lambda: ends - asyncio.get_running_loop().time())
    ended = await asyncio.gather(*(cluster.create(CONFIG_MAP) for _ in range(1800)), return_exceptions=True)
    refused = [end for end in ended if isinstance(end, NotLeaderError)]
    assert len(server.sent) == len(ended) - len(refused)
    # At most 1,200 fit into two seconds; a slow machine's own time counts too, and only the burst is sure.
    assert 600 <= len(server.sent) <= 1215


@without_waiting
async def test_a_pass_that_is_cut_short_within_a_write_still_hears_the_answer() -> None:
    server = Server()
    server.delay = 5
    began = asyncio.get_running_loop().time()
    writing = asyncio.create_task(connected(server, 10).create(CONFIG_MAP))
    await asyncio.sleep(1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert asyncio.get_running_loop().time() - began >= 5


def refused(status: int, reason: str = "", **details: Any) -> Answer:
    return Answer(
        status, {"kind": "Status", "reason": reason, "message": "as the test wants it", "details": details}
    )


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("write", [True, False])
def test_a_busy_server_is_left_alone_for_as_long_as_it_says_and_asked_again(status: int, write: bool) -> None:
    @without_waiting
    async def story() -> None:
        server = Server()
        server.answers = [Answer(status, {}, {"Retry-After": "7"})] * 2
        cluster, began = connected(server, 14.0), asyncio.get_running_loop().time()
        await (cluster.create(CONFIG_MAP) if write else cluster.get("ConfigMap", "iris", "team-a"))
        assert 14 <= asyncio.get_running_loop().time() - began < 15
        assert len(server.sent) == 3

    story()


@without_waiting
async def test_every_other_call_is_held_back_too() -> None:
    server = Server()
    server.answers = [Answer(429, {}, {"Retry-After": "7"})]
    cluster, began = connected(server, 14.0), asyncio.get_running_loop().time()
    first = asyncio.create_task(cluster.get("ConfigMap", "iris", "team-a"))
    await asyncio.sleep(1)
    await cluster.get("ConfigMap", "other", "team-a")
    assert 7 <= asyncio.get_running_loop().time() - began < 8
    await first


@without_waiting
async def test_the_lease_is_asked_again_after_the_pause() -> None:
    server = Server()
    server.answers = [Answer(429, {}, {"Retry-After": "7"})]
    client: Any = server
    ends = asyncio.get_running_loop().time() + 5
    cluster = Cluster(client, lambda: ends - asyncio.get_running_loop().time())
    with pytest.raises(NotLeaderError):
        await cluster.create(CONFIG_MAP)
    assert len(server.sent) == 1


@without_waiting
async def test_a_server_that_is_busy_for_ever_is_an_error_and_its_longest_pause_has_an_end() -> None:
    server = Server()
    server.answers = [Answer(503, {}, {"Retry-After": "99999"})] * 10
    began = asyncio.get_running_loop().time()
    with pytest.raises(ClusterError):
        await connected(server, 14.0).get("ConfigMap", "iris", "team-a")
    assert asyncio.get_running_loop().time() - began < 120


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e9"])
async def test_without_a_number_of_seconds_nobody_waits(said: str) -> None:
    server = Server()
    server.answers = [Answer(503, {}, {"Retry-After": said})]
    with pytest.raises(ClusterError):
        await connected(server, 14.0).get("ConfigMap", "iris", "team-a")
    assert len(server.sent) == 1


async def test_refused_credentials_are_read_anew_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    async def rotated() -> Configuration:
        return Configuration(api_key={"BearerToken": "bearer new"})

    monkeypatch.setattr(module, "configuration", rotated)
    server.answers = [refused(401)]
    await connected(server, 14.0).create(CONFIG_MAP)
    assert len(server.sent) == 2
    assert server.configuration.api_key == {"BearerToken": "bearer new"}
    server.answers = [refused(401), refused(401)]
    with pytest.raises(ClusterError, match="401"):
        await connected(server, 14.0).create(CONFIG_MAP)
    assert len(server.sent) == 4


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidError), (403, ForbiddenError), (409, ConflictError), (422, InvalidError)],
)
async def test_what_is_refused_for_good_has_an_error_of_its_own(status: int, error: type[Exception]) -> None:
    server = Server()
    server.answers = [refused(status)]
    with pytest.raises(error, match="as the test wants it"):
        await connected(server, 14.0).create(CONFIG_MAP)


async def test_what_ends_with_its_namespace_is_told_apart_from_what_is_forbidden() -> None:
    server = Server()
    server.answers = [
        refused(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]),
        refused(403, "Forbidden"),
    ]
    with pytest.raises(EndingError):
        await connected(server, 14.0).create(CONFIG_MAP)
    with pytest.raises(ForbiddenError) as error:
        await connected(server, 14.0).create(CONFIG_MAP)
    assert not isinstance(error.value, EndingError)


async def test_one_that_exists_already_is_told_and_any_other_conflict_is_an_error() -> None:
    server = Server()
    cluster = connected(server, 14.0)
    assert await cluster.make(CONFIG_MAP)
    server.answers = [refused(409, "AlreadyExists"), refused(409, "AlreadyExists")]
    assert not await cluster.make(CONFIG_MAP)
    assert await cluster.create(CONFIG_MAP) is None
    server.answers = [refused(409, "Conflict")]
    with pytest.raises(ConflictError):
        await cluster.make(CONFIG_MAP)


async def test_pages_are_given_one_by_one_and_name_what_is_asked_for() -> None:
    server = Server()
    first, last = {"continue": "token"}, {"continue": ""}
    items = [{"metadata": {"name": name}} for name in ("one", "two")]
    server.answers = [
        Answer(200, {"metadata": told, "items": [item]})
        for told, item in zip((first, last), items, strict=True)
    ]
    selector: module.Selector = {"team": "a", "model": ("x", "y")}
    pages = connected(server, 0.0).pages("ConfigMap", namespaces=("team-a",), selector=selector)
    page = await anext(pages)
    assert [(item["kind"], item["metadata"]["name"]) for item in page] == [("ConfigMap", "one")]
    assert len(server.sent) == 1
    assert [len(page) async for page in pages] == [1]
    assert server.queries[0]["labelSelector"] == "team=a,model in (x,y)"
    assert "continue" not in server.queries[0]
    assert server.queries[1] == server.queries[0] | {"continue": "token"}


async def test_metadata_alone_are_listed_on_request() -> None:
    server = Server()
    partial = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}}
    server.answers = [Answer(200, {"metadata": {}, "items": [partial]}) for _ in range(2)]
    cluster = connected(server, 0.0)
    (page,) = [page async for page in cluster.pages("Pod", metadata_only=True)]
    assert page == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]
    await cluster.list("Pod")
    assert "as=PartialObjectMetadataList" in server.accepted[0]
    assert server.accepted[1] == "application/json"


async def test_an_empty_list_of_metadata_has_null_for_items() -> None:
    server = Server()
    server.answers = [Answer(200, {"metadata": {}, "items": None})]
    pages = connected(server, 0.0).pages("Pod", metadata_only=True)
    assert [page async for page in pages] == [[]]


async def test_an_answer_that_is_no_object_is_an_error_of_the_server() -> None:
    server = Server()
    for body in (b"<html>", b"[]"):
        answer = Answer(200, {})
        answer.text = body
        server.answers.append(answer)
    for _ in range(2):
        with pytest.raises(ClusterError, match="get ConfigMap iris"):
            await connected(server, 14.0).get("ConfigMap", "iris", "team-a")


def counted() -> dict[tuple[str, str], float]:
    (family,) = API_REQUESTS.collect()
    return {
        (sample.labels["verb"], sample.labels["code"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def test_calls_are_counted_by_what_they_do_and_by_each_answer() -> None:
    before, server = counted(), Server()
    cluster = connected(server, 10)
    server.answers = [
        Answer(404, {}),
        Answer(200, {"items": [], "metadata": {}}),
        Answer(409, {"reason": "Conflict"}),
    ]
    await cluster.get("ConfigMap", "iris", "team-a")
    await cluster.list("ConfigMap")
    with pytest.raises(ConflictError):
        await cluster.replace(CONFIG_MAP)
    for write in ("create", "apply", "merge_status", "scale", "delete"):
        await WRITES[write](cluster)
    now = counted()
    assert {key: value - before.get(key, 0) for key, value in now.items() if value != before.get(key)} == {
        ("get", "404"): 1,
        ("list", "200"): 1,
        ("update", "409"): 1,
        ("create", "200"): 1,
        ("patch", "200"): 3,
        ("delete", "200"): 1,
    }


async def test_a_call_without_an_answer_is_counted_and_one_that_is_not_made_is_not() -> None:
    before, server = counted(), Server()

    async def broken(*_: Any, **__: Any) -> Answer:
        raise ConnectionResetError("gone")

    with pytest.raises(NotLeaderError):
        await connected(server, 0).delete("ConfigMap", "iris", "team-a", "u")
    assert counted() == before
    server.call_api = broken  # type: ignore[method-assign]
    with pytest.raises(ClusterError):
        await connected(server, 10).get("ConfigMap", "iris", "team-a")
    assert counted()["get", "none"] == before.get(("get", "none"), 0) + 1
