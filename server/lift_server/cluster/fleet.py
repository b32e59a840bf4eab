"""The engines and workers of a Ray cluster, each a detached actor with a name; the only module that imports Ray.

In: an address, settings. Out: which there are, more of them, fewer. Ray finds a host for each, and another when that
one is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util import get_placement_group, list_named_actors, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from lift_config.settings import Settings
from lift_server.cluster.keeper import Keeper, Member, as_variables
from lift_server.launcher.up import Commands

NAMESPACE = "lift-serve"
DRIVER = "driver"
REPORT_S = 5.0
DRAIN_S = 60.0  # Supervisor's grace, and what a hanging process takes beyond it

Json = dict[str, Any]


class FleetError(Exception):
    """There is no such cluster, or another driver has it."""


class Fleet:
    """Until `close`. Its calls block while Ray's head is away, `report` and `drain` excepted."""

    def __init__(self, settings: Settings, address: str, commands: Commands | None = None) -> None:
        self._settings, self._commands = settings, commands or Commands()
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
        except ConnectionError as error:
            raise FleetError(f"no Ray cluster at {address!r} ({error}): `ray start --head` starts one") from error

    def close(self) -> None:
        """Engines and workers go on."""
        ray.shutdown()

    def claim(self) -> None:
        """One driver at a time: an actor of this process, which ends with it. FleetError where another has it."""
        try:
            self._claim = ray.remote(_Driver).options(name=DRIVER, num_cpus=0).remote()
            ray.get(self._claim.here.remote())
        except (ValueError, RayActorError) as error:
            raise FleetError("another `lift-serve up --ray` looks after this cluster") from error

    def members(self) -> list[Member]:
        """By number. Those that wait for a host included."""
        found = [(role, number) for role, _, number in (name.partition("-") for name in list_named_actors())]
        members = [Member(role, int(number)) for role, number in found if role in ("engine", "worker")]
        return sorted(members, key=lambda one: (one.number, one.role))

    def add(self, member: Member) -> None:
        options = self._shared(member) if self._settings.cluster.together else self._alone(member)
        options |= {"name": member.name, "lifetime": "detached", "max_restarts": -1, "max_concurrency": 2}
        settings: Mapping[str, str] = as_variables(self._settings)
        ray.remote(Keeper).options(**options).remote(member, settings, ray.util.get_node_ip_address, self._commands)

    async def report(self, member: Member) -> str:
        try:
            return str(await asyncio.wait_for(ray.get_actor(member.name).report.remote(), REPORT_S))
        except (TimeoutError, ValueError, RayError):
            return f"{member.name}: waits for a host"

    async def drain(self, members: Sequence[Member]) -> None:
        """Their processes end in order, an engine's answers and a worker's hand-back included. Then their actors."""
        await asyncio.gather(*(_drain(member) for member in members))
        for member in members:
            if self._settings.cluster.together and member.role == "engine":
                remove_placement_group(get_placement_group(_pair(member)))

    def _alone(self, member: Member) -> Json:
        """On the host that has most to spare, so that one that dies takes few of them along."""
        gpus = getattr(self._settings.cluster, f"{member.role}_gpus") if self._settings.device != "cpu" else 0
        return {"num_cpus": 1, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}

    def _shared(self, member: Member) -> Json:
        """Engine and worker of one number are within one bundle: on one GPU."""
        gpu = {"GPU": 1.0} if self._settings.device != "cpu" else {}
        try:
            group = get_placement_group(_pair(member))
        except ValueError:
            group = placement_group([{"CPU": 2.0, **gpu}], name=_pair(member), lifetime="detached")
        part = getattr(self._settings, member.role).gpu_memory_fraction if gpu else 0
        return {
            "num_cpus": 1,
            "num_gpus": part,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        }


async def _drain(member: Member) -> None:
    try:
        actor = ray.get_actor(member.name)
    except ValueError:  # it is no more
        return
    with suppress(TimeoutError, RayError):  # its host is gone, or it never had one
        await asyncio.wait_for(actor.report.remote(), REPORT_S)
        await asyncio.wait_for(actor.stop.remote(), DRAIN_S)
    ray.kill(actor)


class _Driver:
    def here(self) -> bool:
        return True


def _pair(member: Member) -> str:
    return f"pair-{member.number}"
