"""`python -m lift_workers [--index 0]`: one training worker, until SIGTERM or SIGINT.

In: Settings. The worker's index picks its GPU and, with the host's name, makes its name.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from obstore.store import ObjectStore, from_url
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from lift_config.logs import log_to_stderr
from lift_config.machine import SPIN_COUNT
from lift_config.settings import Settings
from lift_workers import pipeline
from lift_workers.courses import MakeCourse
from lift_workers.generator import Generator
from lift_workers.registry import LookUp, engines
from lift_workers.trainer import Trainer
from lift_workers.worker import Worker

if TYPE_CHECKING:
    from lift_workers.tracing import Traces

CHILD = (sys.executable, "-m", "lift_workers.child")

MakeGenerator = Callable[[LookUp, str, str, int], Generator]

logger = logging.getLogger(__name__)


def main(make_generator: MakeGenerator = Generator, make_course: MakeCourse = pipeline.Course) -> None:
    """What makes generator and courses differs in benchmarks only."""
    parser = argparse.ArgumentParser(prog="python -m lift_workers", description="one training worker")
    parser.add_argument("--index", type=int, default=0, help="counts the workers of this host; picks the GPU")
    index = parser.parse_args().index
    settings = Settings()
    log_to_stderr(settings.log_format, "%(asctime)s %(levelname)s worker: %(message)s")
    if not settings.redis_url:
        raise SystemExit("lift_workers: REDIS_URL is not set (`lift-serve up` brings a Redis of its own)")
    asyncio.run(_serve(settings, index, make_generator, make_course))


class Backoff(ExponentialBackoff):
    """Up to 5 s, and every one is logged."""

    def __init__(self) -> None:
        super().__init__(cap=5, base=0.1)

    def compute(self, failures: int) -> float:
        logger.warning("Redis does not answer (%d)", failures)
        return super().compute(failures)


async def _serve(settings: Settings, index: int, make_generator: MakeGenerator, make_course: MakeCourse) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine, name = settings.engine, f"{socket.gethostname()}-{index}"
    traces = _traces(settings.otlp_endpoint, name)
    async with (
        # Without end: a worker waits for its Redis. The cache of adapters is not worth waiting for.
        Redis.from_url(settings.redis_url, retry=Retry(Backoff(), -1), socket_timeout=10) as redis,
        Redis.from_url(settings.redis.blobs_url or settings.redis_url, retry=Retry(Backoff(), 3)) as blobs,
        make_generator(
            engines(settings, redis), engine.api_key, settings.model_name, settings.worker.synthesis_concurrency
        ) as generator,
    ):
        worker = Worker(
            settings,
            name,
            redis=redis,
            blobs=blobs,
            store=_store(settings.resolved_store_url),
            generator=generator,
            trainer=Trainer(CHILD, settings.worker.stall_s, child_environment(os.environ, settings, index)),
            traces=traces,
            make_course=make_course,
        )
        await worker.run(stop)
    if traces:
        await traces.close()
    logger.info("ended")


def _traces(endpoint: str, worker: str) -> Traces | None:
    if not endpoint:
        return None
    from lift_workers.tracing import Traces  # with it comes all of OpenTelemetry

    return Traces.to(endpoint, worker)


def child_environment(environment: Mapping[str, str], settings: Settings, index: int) -> dict[str, str]:
    """The training child's: it sees one GPU, the `index`-th of those this worker may use.

    On a CPU it shares the cores with an engine (machine.py). Every step has another length, and oneDNN keeps a kernel
    for each, 1,024 unless told otherwise: memory that grows from document to document. Its progress bars are no lines.
    """
    child = {"GOMP_SPINCOUNT": SPIN_COUNT, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "TQDM_DISABLE": "1"}
    child |= environment
    if settings.workers > 1 and settings.device != "cpu":
        visible = [device for device in child.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
        child["CUDA_VISIBLE_DEVICES"] = visible[index] if visible else str(index)
    return child


def _store(url: str) -> ObjectStore:
    return from_url(url, mkdir=True, automatic_cleanup=True) if url.startswith("file:") else from_url(url)


if __name__ == "__main__":
    main()
