"""A whole run: owners at work, faults, rest, and what must hold then. In: a home, a seed. Out: the journal.

A run that was broken off goes on in the same home: with the faults that were not put yet, and all it knew.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import redis
from redis.asyncio import Redis
from tests.faults import invariants
from tests.faults.injector import inject
from tests.faults.journal import Fate, Journal
from tests.faults.load import Load
from tests.faults.plan import plan
from tests.product import API_KEY, Key, Product, until

from lift_config.contract import DOCUMENTS_KEY, STREAMS, TURN_STREAMS, turns_redis_key
from lift_server.engine import Engine
from lift_server.janitor import clean, clean_engines
from lift_server.launcher.embedded import embedded_url
from lift_server.records import Records
from lift_server.store import open_store

OWNERS = ("ada", "bert", "cleo")
LEASE_S = 5  # shorter than the longer pauses: a worker that is paused loses its job while it holds it
TRAIN_S = 60  # what is still queued then, uploaded while nothing could be trained, its owners cancel
REST_S = 600
# float32, where one adapter says the same whatever else is computed; two workers, so that one may take the other's job;
# the engine is found in Redis, which may lose it.
ENVIRONMENT = {
    "LIFT_CPU_DTYPE": "float32",
    "LIFT_WORKERS": "2",
    "LIFT_WORKER__LEASE_S": str(LEASE_S),
    "LIFT_ENGINE__REGISTERED": "true",
}
Json = dict[str, Any]
Say = Callable[[str], None]


def run(home: Path, *, seed: int, kills: int, say: Say) -> Journal:
    """AssertionError where the product did not come back or come to rest; else the journal tells of violations."""
    home.mkdir(parents=True, exist_ok=True)
    product = Product(home, ENVIRONMENT)
    journal, began_s = Journal(home / "journal.jsonl"), time.monotonic()
    try:
        product.start()
        keys = _keys(product, home / "keys.json")
        asyncio.run(_work(product, keys, journal, seed=seed, kills=kills, say=say))
        product.stop()  # checks that no process is left
    finally:
        product.end()
        journal.ran((time.monotonic() - began_s) / 60)
        journal.close()
    return journal


def _keys(product: Product, path: Path) -> dict[str, Key]:
    if path.exists():
        return {name: Key(**values) for name, values in json.loads(path.read_text()).items()}
    keys = {name: product.create_key(name) for name in OWNERS}
    path.write_text(json.dumps({name: {"id": key.id, "secret": key.secret} for name, key in keys.items()}))
    return keys


async def _work(product: Product, keys: dict[str, Key], journal: Journal, *, seed: int, kills: int, say: Say) -> None:
    loads = [Load(name, product.url, key.secret, journal, seed) for name, key in keys.items()]
    stop = asyncio.Event()
    at_work = [asyncio.create_task(load.run(stop)) for load in loads]
    try:
        faults = plan(seed, kills)[len(journal.faults) :]
        injecting = asyncio.create_task(inject(product, faults, journal, say))
        await asyncio.wait({injecting, *at_work}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(injecting, *at_work)
        say("all faults were put; coming to rest")
        await asyncio.to_thread(_trained, product, keys)
        for load in loads:
            await load.cancel_unfinished()
        shown = await asyncio.to_thread(_at_rest, product, keys)
        await _clean(product)
        for load in loads:
            await _ask_each(load, shown[load.name], journal)
        check(product, journal, shown)
    finally:
        for load in loads:
            await load.close()


def _trained(product: Product, keys: dict[str, Key]) -> None:
    """Returns when nothing is left to be trained, or after TRAIN_S."""
    until_s = time.monotonic() + TRAIN_S

    def nothing_is_left() -> bool:
        left = [one for key in keys.values() for one in _documents(product, key) if one["unfinished"]]
        return not left or time.monotonic() > until_s

    until(nothing_is_left, 2 * TRAIN_S)


def _at_rest(product: Product, keys: dict[str, Key]) -> dict[str, list[Json]]:
    """What each owner is shown when nothing is trained any more, nothing waits in the queue (the workers take what was
    cancelled out of it), and every deletion that was cut off has been ended."""
    url = embedded_url(product.home)
    assert url

    def shown() -> dict[str, list[Json]] | None:
        found = {name: _documents(product, key) for name, key in keys.items()}
        documents = [document for documents in found.values() for document in documents]
        with redis.Redis.from_url(url) as client:
            turns = map(turns_redis_key, TURN_STREAMS)
            waiting = [*map(client.zcard, turns), *map(client.xlen, STREAMS)]
            is_at_work = client.zcard(DOCUMENTS_KEY) > len(documents) or any(waiting)
        return None if is_at_work or any(document["unfinished"] for document in documents) else found

    return until(shown, REST_S)


async def _clean(product: Product) -> None:
    """The janitor's work, without its hour of patience: nothing is on its way any more."""
    url = embedded_url(product.home)
    assert url
    async with Redis.from_url(url, decode_responses=True) as client:
        records = Records(client, open_store(product.settings.resolved_store_url))
        await clean(records, young_s=0)
        engine = Engine((product.engine_url,), API_KEY)
        try:
            await clean_engines(records, engine, lambda _: False)
        finally:
            await engine.close()


def _documents(product: Product, key: Key) -> list[Json]:
    headers = {"Authorization": f"Bearer {key.secret}"}
    answer = httpx2.get(f"{product.url}/v1/documents", params={"limit": 100}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert not page["has_more"]
    return list(page["data"])


async def _ask_each(load: Load, documents: list[Json], journal: Journal) -> None:
    """Now that nothing dies, every document that is ready answers."""
    for document in documents:
        if document["id"] not in load.owned.fates:
            journal.uploaded(load.name, document["id"], "")  # its answer had been lost
        if document["status"] == "ready":
            await load.ask_about(document["id"])


def check(product: Product, journal: Journal, shown: dict[str, list[Json]]) -> None:
    for violation in (
        *invariants.of_documents(journal, shown),
        *invariants.of_answers(journal, shown),
        *invariants.of_trainings(journal),
        *invariants.of_redis(product, shown),
        *invariants.of_folders(product, shown),
    ):
        journal.violation(violation)


def summary(journal: Journal) -> Json:
    fates = [fate for owned in journal.owners.values() for fate in owned.fates.values()]
    return {
        "kills": sum(1 for fault in journal.faults if not fault["what"].startswith("pause")),
        "of the engine": sum(1 for fault in journal.faults if fault["what"].startswith("kill engine")),
        "pauses": sum(1 for fault in journal.faults if fault["what"].startswith("pause")),
        "documents": len(fates),
        "deleted": fates.count(Fate.DELETED),
        "answers": len(journal.answers),
        "adapters that answered": len({answer.adapter for answer in journal.answers if answer.adapter}),
        "refused": dict(journal.refused.most_common()),
        "violations": journal.violations,
    }
