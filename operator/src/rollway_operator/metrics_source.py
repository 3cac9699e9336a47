"""Read what model pods counted, and what their models take and give, from the pods themselves.

    Target ──► GET /metrics    ──► Counters, or why there are none ──► Window
           └─► GET /signature  ──► Signature, or why it is unknown

A pod runs what its owner put into it, so it may hang, redirect, or send what it likes: redirects are not followed,
proxy variables are ignored, time, size and the number of connections are bounded. A text that is not exactly what our
servers write makes the pod one that was not read; nothing is guessed from half of it.
"""

import asyncio
import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rollway_operator import answers
from rollway_operator.analysis import Counters, Reading, Sample, Window
from rollway_operator.answers import AnswerError
from rollway_operator.counts import MOST_SERIES, NAMES, Series, UnreadableError, count, counted, series
from rollway_operator.domain import Key
from rollway_operator.signature import Column, Signature

SECONDS: Final = 2.0
"""How long one pod may take."""
SIDE_SECONDS: Final = 5.0
"""How long all pods of a side may take: those not reached by then are missing."""
LARGEST_ANSWER: Final = 4 * 1024 * 1024
LARGEST_SIGNATURE: Final = 1024 * 1024
_CONNECTIONS: Final = 64
_CONNECTIONS_A_SIDE: Final = 8
_LARGEST_SIZE: Final = 2**53
_LONGEST_LINE: Final = 512

_HEAD: Final = re.compile(rf'({"|".join(NAMES)})(?:\{{((?:\w+="[^"\\]*"(?:,|(?=\}})))*)\}})?')
_LABEL: Final = re.compile(r'(\w+)="([^"\\]*)"')


@dataclass(frozen=True)
class Target:
    """A pod to read."""

    uid: str
    name: str
    address: str
    """Its IP address."""
    port: int
    """Where it serves metrics."""
    namespace: str


@dataclass(frozen=True)
class Unknown:
    """Nobody can tell what a model takes and gives now; asking again may help."""

    why: str


class Source(Protocol):
    """Where what pods counted is read."""

    async def read(self, pods: Iterable[Target], at: datetime) -> Reading:
        """Read what each pod of one namespace counted; one that cannot be read has a reason instead."""

    async def aclose(self) -> None:
        """Close the connections."""


class _NotThereError(UnreadableError):
    """The pod's server does not have what was asked for."""


# ------------------------------------------------------------------------------------------------------- the pods


class PodMetrics:
    """Asks model pods, a bounded number at a time."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Connect to each pod afresh: a connection that was kept may lead to the address's next pod."""
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(SECONDS),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=0),
            transport=transport,
        )

    async def read(self, pods: Iterable[Target], at: datetime) -> Reading:
        """Read what each pod counted; one that cannot be read is missing, with the reason."""
        places = asyncio.Semaphore(_CONNECTIONS_A_SIDE)
        deadline = asyncio.get_running_loop().time() + SIDE_SECONDS
        async with asyncio.TaskGroup() as group:
            tasks = {pod.uid: group.create_task(self._counted(pod, places, deadline)) for pod in pods}
        found = {uid: task.result() for uid, task in tasks.items()}
        return Reading(
            at,
            pods={uid: counted for uid, counted in found.items() if isinstance(counted, Counters)},
            missing={uid: why for uid, why in found.items() if isinstance(why, str)},
        )

    async def signature(self, pod: Target) -> Signature | Unknown | None:
        """Ask what a pod's model takes and gives; None where its server is of a time before one could ask."""
        try:
            return _signature(await self._get(pod, "/signature", LARGEST_SIGNATURE))
        except _NotThereError:
            return None
        except UnreadableError as error:
            return Unknown(f"{pod.name} {error}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _counted(self, pod: Target, places: asyncio.Semaphore, deadline: float) -> Counters | str:
        try:
            async with asyncio.timeout_at(deadline), places:
                return counters(await self._get(pod, "/metrics", LARGEST_ANSWER))
        except TimeoutError:
            return f"{pod.name} was not reached in time"
        except UnreadableError as error:
            return f"{pod.name} {error}"

    async def _get(self, pod: Target, path: str, largest: int) -> bytes:
        url = httpx.URL(scheme="http", host=_address(pod), port=pod.port, path=path)
        async with self._places:
            try:
                async with asyncio.timeout(SECONDS), self._client.stream("GET", url) as response:
                    return await _body(response, largest)
            except (TimeoutError, httpx.TimeoutException) as error:
                raise UnreadableError(f"did not answer within {SECONDS:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise UnreadableError(f"could not be reached: {type(error).__name__}") from error


def _address(pod: Target) -> str:
    """Give a pod's address, unless it is one that no pod has: link-local ones belong to the machine's makers."""
    try:
        address = ipaddress.ip_address(pod.address)
    except ValueError as error:
        raise UnreadableError("has no address") from error
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise UnreadableError("has an address that no pod has")
    return str(address)


async def _body(response: httpx.Response, largest: int) -> bytes:
    if response.status_code == HTTPStatus.NOT_FOUND:
        raise _NotThereError("does not have it (404)")
    if response.status_code != HTTPStatus.OK:
        redirect = ", a redirect, which is never followed" if response.is_redirect else ""
        raise UnreadableError(f"answered with status {response.status_code}{redirect}")
    try:
        return await answers.body(response, largest)
    except AnswerError as error:
        raise UnreadableError(str(error)) from error


# ----------------------------------------------------------------------------------------------------- the counters


def counters(text: bytes) -> Counters:
    """Read the counters out of Prometheus' text.

    By a strict pattern, since nothing but our own servers' text is accepted; prometheus_client's parser reads more, and
    takes ten times as long.
    """
    return counted(_counts(text))


def _counts(text: bytes) -> dict[Series, int]:
    """Give the counts that are needed."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise UnreadableError("sent what is not text") from error
    found: dict[Series, int] = {}
    for line in lines:
        if line.startswith(NAMES):
            head, _, value = line.rpartition(" ")
            if len(head) > _LONGEST_LINE or len(found) >= MOST_SERIES:
                raise UnreadableError("sent more than model servers send")
            each = _series(head)
            if each in found:
                raise UnreadableError(f"counts {each.name} twice")
            found[each] = count(each.name, value)
    return found


@functools.lru_cache(maxsize=4096)
def _series(head: str) -> Series:
    """Read what a line counts; pods of all models have the same few hundred, so it is remembered."""
    matched = _HEAD.fullmatch(head)
    if matched is None:
        raise UnreadableError("sent what no model server sends")
    name, labels = matched.groups()
    return series(name, tuple(_LABEL.findall(labels or "")))


# ---------------------------------------------------------------------------------------------------- the signature


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


_Size = Annotated[int, Field(ge=-1, le=_LARGEST_SIZE)]


class _Output(_Answer):
    name: str = Field(min_length=1, max_length=1024)
    type: str = Field(pattern=r"^[A-Z0-9]{1,16}$")
    shape: list[_Size] = Field(max_length=32)


class _Input(_Output):
    required: bool = True


class _SignatureAnswer(_Answer):
    inputs: list[_Input] = Field(max_length=20_000)
    outputs: list[_Output] = Field(max_length=20_000)


def _signature(body: bytes) -> Signature:
    try:
        answer = _SignatureAnswer.model_validate_json(body)
    except ValidationError as error:
        raise UnreadableError("did not answer with a signature") from error
    for columns in (answer.inputs, answer.outputs):
        if len({column.name for column in columns}) != len(columns):
            raise UnreadableError("answered with a signature that has a name twice")
    return Signature(
        inputs=tuple(Column(c.name, c.type, tuple(c.shape), c.required) for c in answer.inputs),
        outputs=tuple(Column(c.name, c.type, tuple(c.shape)) for c in answer.outputs),
    )


# ------------------------------------------------------------------------------------------------------ the windows


@dataclass(frozen=True)
class Rollout:
    """What a window is kept for: when anything of it differs, the evidence begins anew."""

    stable: str
    """The revision."""
    candidate: str
    """The revision."""
    started: datetime | None = None
    """When the candidate was started: one that is tried again is not judged by its last try."""


class Kept:
    """The evidence of each ModelDeployment's present rollout, in memory: a new process begins anew."""

    def __init__(self) -> None:
        """Begin without any."""
        self._windows: dict[Key, tuple[Rollout, Window]] = {}

    def get(self, key: Key, rollout: Rollout) -> Window:
        """Give what is remembered of a rollout."""
        kept, window = self._windows.get(key, (rollout, Window()))
        return window if kept == rollout else Window()

    def add(
        self, key: Key, rollout: Rollout, sample: Sample, step: int, since: datetime | None = None
    ) -> Window:
        """Add what both sides did since the last time; `Window.add` explains the rest."""
        window = self.get(key, rollout).add(sample, step, since)
        self._windows[key] = rollout, window
        return window

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a ModelDeployment."""
        self._windows.pop(key, None)


class Windows(Kept):
    """The evidence that pods give."""

    def __init__(self, source: Source) -> None:
        """Read from `source`."""
        super().__init__()
        self._source = source

    async def update(
        self,
        key: Key,
        rollout: Rollout,
        step: int,
        *,
        stable: Iterable[Target],
        canary: Iterable[Target],
        now: datetime,
        since: datetime | None = None,
    ) -> Window:
        """Read both sides at once and add what they did since the last time.

        Name every pod that stays and whose server runs, ready or not: one that is left out is forgotten, and with it
        what it did since it was last read.
        """
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._source.read(stable, now))
            other = group.create_task(self._source.read(canary, now))
        return self.add(key, rollout, Sample(reading.result(), other.result()), step, since)
