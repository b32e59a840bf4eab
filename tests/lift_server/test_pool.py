"""Connections to Redis, however many requests come at once."""

import asyncio
from typing import Any

from lift_server.pool import CONNECTIONS

AT_ONCE = 3 * CONNECTIONS
OWN = 2  # the test's, and the one that listens


async def test_many_at_once_share_few_connections(front_end: Any, redis: Any) -> None:
    """An upload watches on one connection while it reads on another; one owner's take turns, lists do not."""
    uploads = (front_end.upload(f"The keeper has {n} bees.") for n in range(AT_ONCE))
    lists = (front_end.client.get("/v1/documents") for _ in range(AT_ONCE))
    await asyncio.gather(*uploads, *lists)
    assert len((await front_end.client.get("/v1/documents?limit=100")).json()["data"]) == AT_ONCE
    assert 1 + OWN < (await redis.info("clients"))["connected_clients"] <= CONNECTIONS + OWN
