import asyncio

import httpx

from rollway_operator.health import SILENCE, Health
from rollway_testing.clock import without_waiting
from rollway_testing.processes import free_port


@without_waiting
async def test_whoever_is_answered_now_and_then_is_alive_even_if_there_is_nothing_to_do() -> None:
    health = Health()
    for _ in range(100):
        await asyncio.sleep(SILENCE.total_seconds() - 1)
        assert not health.stuck
        health.beat()
    await asyncio.sleep(SILENCE.total_seconds() + 1)
    assert health.stuck
    health.lease_answered()
    assert not health.stuck


async def test_a_replica_is_ready_once_it_knows_the_lease_and_a_leader_while_it_can_work() -> None:
    health, port = Health(), free_port()
    async with health.served(port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def asked(path: str) -> tuple[int, str]:
            answer = await client.get(path)
            return answer.status_code, answer.text

        assert await asked("/healthz") == (200, "ok")
        assert await asked("/readyz") == (503, "the lease was not read yet")
        health.lease_answered()
        assert await asked("/readyz") == (200, "ok")
        health.hindered = "the CustomResourceDefinitions are missing"
        assert await asked("/readyz") == (503, "the CustomResourceDefinitions are missing")
        assert await asked("/healthz") == (200, "ok")
