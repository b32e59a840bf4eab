"""Keeps as many engines and workers on a cluster as are needed. In: settings, the fleet. Out: changes to the fleet, a
line in the log for each. What it goes by is in Redis and at Ray, so the next one goes on where this one ends.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from redis.asyncio import Redis

from lift_config.settings import Settings
from lift_server.client.connection import own_address
from lift_server.cluster.keeper import Member, Role
from lift_server.cluster.load import Watch, running
from lift_server.cluster.scaling import Limits, Load, Scale, rescaled, wanted_engines, wanted_workers

log = logging.getLogger(__name__)

LOOK_S = 5.0


class Fleet(Protocol):
    """fleet.py's, which is Ray's."""

    def members(self) -> list[Member]: ...
    def add(self, member: Member) -> None: ...
    async def report(self, member: Member) -> str: ...
    async def drain(self, members: Sequence[Member]) -> None: ...


async def keep(settings: Settings, fleet: Fleet) -> None:
    """For ever."""
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        crew = Crew(settings, fleet, Watch(redis, f"{own_address(settings.server)}/metrics"), redis)
        while True:
            try:
                await crew.look()
            except Exception:  # this loop's edge: Redis or Ray may be away; the next round tries again
                log.exception("the cluster was not looked after")
            await asyncio.sleep(LOOK_S)


class Crew:
    def __init__(self, settings: Settings, fleet: Fleet, watch: Watch, redis: Redis) -> None:
        self._settings, self._fleet, self._watch, self._redis = settings, fleet, watch, redis
        self._eased_since_s: dict[Role, float | None] = {}
        self._leaving: set[Member] = set()
        self._drains: set[asyncio.Task[None]] = set()
        self._reports: dict[Member, str] = {}

    async def look(self) -> None:
        """RedisError where Redis is away, and Ray's errors."""
        members = await asyncio.to_thread(self._fleet.members)
        await self._tell(members)
        here = [member for member in members if member not in self._leaving]
        load, run = await self._watch.load(), await running(self._redis)
        counts = self._counts(load, Counter(member.role for member in here), run)
        more, fewer = changes(members, here, counts)
        if self._leaving and self._settings.cluster.together:
            return  # else an engine's number might be another worker's, which is still leaving
        for member in more:
            log.info("%s is added: %s", member.name, load)
            await asyncio.to_thread(self._fleet.add, member)
        if fewer:
            log.info("taken away: %s: %s", ", ".join(member.name for member in fewer), load)
            self._leaving.update(fewer)
            drain = asyncio.create_task(self._drain(fewer))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
        if more or fewer:
            self._watch.forget()

    def _counts(self, load: Load, here: Mapping[Role, int], run: Mapping[Role, int]) -> dict[Role, int]:
        cluster, slo, now_s = self._settings.cluster, self._settings.slo, time.monotonic()
        engines = Limits(cluster.engines_min, cluster.engines_max)
        limits: dict[Role, Limits] = {
            "engine": engines,
            "worker": engines if cluster.together else Limits(cluster.workers_min, cluster.workers_max),
        }
        wanted: dict[Role, int] = {
            "engine": wanted_engines(load, slo),
            "worker": wanted_workers(load, slo, here["worker"]),
        }
        counts: dict[Role, int] = {}
        for role in limits:
            scale = Scale(here[role], self._eased_since_s.get(role))
            settled = run[role] >= here[role]
            scale = rescaled(
                scale, wanted[role], limits[role], settled=settled, now_s=now_s, cool_down_s=cluster.cool_down_s
            )
            counts[role], self._eased_since_s[role] = scale.count, scale.eased_since_s
        return dict.fromkeys(counts, max(counts.values())) if cluster.together else counts

    async def _drain(self, members: Sequence[Member]) -> None:
        try:
            await self._fleet.drain(members)
        except Exception:  # this task's edge: what is still there is taken away in the next round
            log.exception("%s: not taken away", ", ".join(member.name for member in members))
        self._leaving.difference_update(members)

    async def _tell(self, members: Sequence[Member]) -> None:
        reports = dict(zip(members, await asyncio.gather(*map(self._fleet.report, members)), strict=True))
        for member, report in reports.items():
            if report != self._reports.get(member):
                log.info("%s", report)
        self._reports = reports


def changes(
    members: Sequence[Member], here: Sequence[Member], counts: Mapping[Role, int]
) -> tuple[list[Member], list[Member]]:
    """Whom to add, and whom of `here` to take away; `members` has those that are leaving too."""
    more: list[Member] = []
    fewer: list[Member] = []
    for role, count in counts.items():
        present = sorted((member for member in here if member.role == role), key=lambda one: one.number)
        free = (Member(role, number) for number in itertools.count() if Member(role, number) not in members)
        more += itertools.islice(free, max(0, count - len(present)))
        fewer += present[count:]
    return more, fewer
