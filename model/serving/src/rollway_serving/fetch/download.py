"""Read every file of a source into a folder: in parallel, hashing while reading, going on where a read broke.

Large S3 objects are read as several ranges at once, handed on in order::

    part 0  ████████ ─► hash, write        parts in flight: at most `_PARTS` of all files together,
    part 1  █████                           so at most `_PARTS * _PART_BYTES` of memory
    part 2  ██
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import time
from typing import TYPE_CHECKING, TypeVar

from rollway_serving.errors import FetchFailed
from rollway_serving.fetch.manifest import FetchedFile
from rollway_serving.fetch.sources import Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from rollway_serving.fetch.sources import RemoteFile, Source

T = TypeVar("T")
_PART_BYTES = 8 << 20
_PARTS = 8
_FILES = 8
_BACKOFF_FIRST = 0.2
_BACKOFF_MOST = 5.0
_log = logging.getLogger(__name__)


class Patience:
    """Retries until nothing at all has arrived for so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since = clock()

    def progressed(self) -> None:
        """Something arrived."""
        self._since = self._clock()

    def left(self) -> float:
        """How many seconds of patience remain."""
        return self._seconds - (self._clock() - self._since)

    async def attempt(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat the action, slower and slower, while it fails for a passing reason."""
        pause = _BACKOFF_FIRST
        while True:
            try:
                result = await action()
            except Transient as error:
                if self.left() <= 0:
                    raise FetchFailed(f"{what} failed for {self._seconds:g} s, last: {error}") from error
                _log.warning("%s failed and is tried again for %.0f s: %s", what, self.left(), error)
                await asyncio.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, self.left())))
                pause = min(pause * 2, _BACKOFF_MOST)
            else:
                self.progressed()
                return result


class Download:
    """One run over all files of a source."""

    def __init__(self, source: Source, folder: Path, patience: Patience) -> None:
        self._source = source
        self._folder = folder
        self._patience = patience
        self._parts = asyncio.Semaphore(_PARTS)
        self._files = asyncio.Semaphore(_FILES)
        self._bytes = 0
        self._done = 0

    async def run(self, files: list[RemoteFile]) -> list[FetchedFile]:
        """Read every file; the first failure ends all of them."""
        reporting = asyncio.create_task(self._report(len(files), sum(file.size for file in files)))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._fetch(file)) for file in files]
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            reporting.cancel()
        return [task.result() for task in tasks]

    async def _fetch(self, file: RemoteFile) -> FetchedFile:
        async with self._files:
            path = self._folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
            hasher = hashlib.sha256()

            def take(chunk: bytes | bytearray) -> None:
                hasher.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(descriptor, view) :]

            try:
                if self._source.ranged and file.size > _PART_BYTES:
                    await self._read_in_parts(file, take)
                else:
                    await self._read(file, 0, file.size, take)
            finally:
                os.close(descriptor)
            self._done += 1
            return FetchedFile(file.path, file.size, hasher.hexdigest())

    async def _read_in_parts(self, file: RemoteFile, take: Callable[[bytes | bytearray], None]) -> None:
        """Parts ask for a slot in their order, so the next one to be taken always has or gets one."""
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(self._read_part(file, start, min(start + _PART_BYTES, file.size)))
                for start in range(0, file.size, _PART_BYTES)
            ]
            for part in parts:
                await asyncio.to_thread(take, await part)
                self._parts.release()

    async def _read_part(self, file: RemoteFile, start: int, end: int) -> bytearray:
        await self._parts.acquire()
        buffer = bytearray()
        await self._read(file, start, end, buffer.extend)
        return buffer

    async def _read(
        self, file: RemoteFile, start: int, end: int, take: Callable[[bytes | bytearray], None]
    ) -> None:
        """Read a range whole, resuming after what has already been taken."""
        position = start

        async def go_on() -> None:
            nonlocal position
            if position == end:
                return
            async for chunk in self._source.read(file, position, end):
                await asyncio.to_thread(take, chunk)
                position += len(chunk)
                self._bytes += len(chunk)
                self._patience.progressed()
            if position < end:
                raise Transient(f"{file.path} ended after {position} of {file.size} bytes")

        await self._patience.attempt(f"reading {file.path}", go_on)

    async def _report(self, files: int, size: int) -> None:
        before = 0
        while True:
            await asyncio.sleep(1)
            speed, before = self._bytes - before, self._bytes
            _log.info(
                "%d/%d files, %.1f/%.1f MiB, %.1f MiB/s",
                self._done, files, self._bytes / 2**20, size / 2**20, speed / 2**20,
            )  # fmt: skip


def _first(error: BaseException) -> BaseException:
    """What is inside the groups that `asyncio.TaskGroup` makes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
