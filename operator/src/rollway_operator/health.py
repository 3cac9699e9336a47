"""What the kubelet asks: whether the process is alive and whether it is ready; never whether it has anything to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from aiohttp import web

SILENCE: Final = timedelta(minutes=3)
"""So long without an answer of the API server to a resync or about the lease, the process counts as stuck."""


class Health:
    """A leader and a standby are alive alike: as long as the API server gives them an answer now and then."""

    def __init__(self) -> None:
        self._last = asyncio.get_running_loop().time()
        self._knows_the_lease = False
        self.hindered = ""
        """What keeps the leader from working; empty while it works and in a standby."""

    def beat(self) -> None:
        """Note an answer that a stuck process would not have got."""
        self._last = asyncio.get_running_loop().time()

    def lease_answered(self) -> None:
        """Note that the lease can be read and written: whoever leads, this replica can take over."""
        self.beat()
        self._knows_the_lease = True

    @property
    def stuck(self) -> bool:
        """Whether a restart is the better hope."""
        return asyncio.get_running_loop().time() - self._last > SILENCE.total_seconds()

    @property
    def unready(self) -> str:
        """Why this replica can do its part not now; empty if it can."""
        return self.hindered if self._knows_the_lease else "the lease was not read yet"

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        """Answer /healthz and /readyz with 200 or 503 and the reason."""

        async def alive(_: web.Request) -> web.Response:
            return _answer("the API server gave no answer for a while" if self.stuck else "")

        async def ready(_: web.Request) -> web.Response:
            return _answer(self.unready)

        app = web.Application()
        app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready)])
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the kubelet asks the pod's address
            yield
        finally:
            await runner.cleanup()


def _answer(trouble: str) -> web.Response:
    return web.Response(text=trouble or "ok", status=503 if trouble else 200)
