"""What must hold once a run has come to rest, whatever died in it. In: product and journal. Out: violations.

Answers are compared by their tokens' log-probabilities: all documents share title and question, so that two answers
differ only by the weights they came from. Those of one adapter agree with each other, those of two adapters do not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from redis import Redis
from tests.faults.journal import Fate, Journal, Owned, Said
from tests.product import Product

from lift_config.contract import (
    DEAD_LETTERS_KEY,
    JOBS_GROUP,
    STREAMS,
    JobRecord,
    document_redis_key,
    job_learning_redis_key,
    job_redis_key,
)
from lift_server.launcher.embedded import embedded_url

SAME = 0.001  # log-probabilities of one adapter in float32, in whatever batch: within 0.00001 in the first runs
NEAR_TIE = 0.001  # of two tokens as likely as each other either may come
Json = dict[str, Any]


def of_documents(journal: Journal, shown: dict[str, list[Json]]) -> Iterator[str]:
    """`shown`: what each owner is shown at the end, all of it."""
    for owner, documents in shown.items():
        owned = journal.owners[owner]
        ids = {document["id"] for document in documents}
        yield from (f"{one} of {owner} is lost" for one in sorted(owned.below(Fate.DELETING) - ids))
        yield from (f"{one} of {owner} was deleted and is back" for one in sorted(ids & owned.at_least(Fate.DELETED)))
        strange = ids - owned.fates.keys()
        if len(strange) > owned.lost:
            yield f"{owner} has {sorted(strange)}, but only {owned.lost} uploads were left without an answer"
        for document in documents:
            yield from _of_document(document, owned)


def _of_document(document: Json, owned: Owned) -> Iterator[str]:
    name, status = document["id"], document["status"]
    if document["unfinished"] or status in ("queued", "training"):
        yield f"{name} is stuck: {status}, unfinished {document['unfinished']}"
    if status == "failed" and not (document["error"] or {}).get("message"):
        yield f"{name} failed without a reason"
    if status == "ready" and not document["adapters"]:
        yield f"{name} is ready without an adapter"
    versions = [adapter["version"] for adapter in document["adapters"]]
    if versions != list(range(1, len(versions) + 1)):
        yield f"{name} has versions {versions}"
    twice = [recipe for recipe, n in Counter(adapter["recipe"] for adapter in document["adapters"]).items() if n > 1]
    if twice:
        yield f"{name} has several versions of {twice}"


def of_redis(product: Product, shown: dict[str, list[Json]]) -> Iterator[str]:
    """Nothing waits, nothing is held, and there are no other records than the documents'."""
    url = embedded_url(product.home)
    assert url
    with Redis.from_url(url, decode_responses=True) as redis:
        for stream in STREAMS:
            if redis.xlen(stream):
                yield f"{stream} has {redis.xlen(stream)} entries"
            if pending := redis.xpending(stream, JOBS_GROUP)["pending"]:
                yield f"{stream} has {pending} entries pending"
        keys = {str(key) for key in redis.scan_iter("lift:*", count=1000)}
        yield from (f"{key} is left behind" for key in sorted(keys) if key.startswith("lift:line:") or ":turns" in key)
        yield from (f"{key} is left behind" for key in sorted(keys) if key.endswith(":lease"))
        ids = {document["id"] for documents in shown.values() for document in documents}
        records = {key for key in keys if key.startswith("lift:document:")}
        yield from (f"{key} is left behind" for key in sorted(records - {document_redis_key(one) for one in ids}))
        jobs = {_job(redis, one) for one in ids}
        records = {key for key in keys if key.startswith("lift:job:") and key.count(":") == 2}
        yield from (f"{key} is left behind" for key in sorted(records - {job_redis_key(one) for one in jobs}))
        told = {key for key in keys if key.endswith(":learning")}
        yield from (f"{key} is left behind" for key in sorted(told - {job_learning_redis_key(one) for one in jobs}))
        letters = set(redis.zrange(DEAD_LETTERS_KEY, 0, -1))
        given_up = {job for job in jobs if _attempts(JobRecord.from_redis(redis.hgetall(job_redis_key(job))))}
        yield from (f"{job} was given up in no dead letter" for job in sorted(given_up - letters))
        yield from (f"{job} is a dead letter, but was not given up" for job in sorted(letters - given_up))


def _attempts(job: JobRecord) -> int:
    return job.error.attempts if job.error else 0


def of_folders(product: Product, shown: dict[str, list[Json]]) -> Iterator[str]:
    """Store and engine have what the documents need, and nothing else."""
    url = embedded_url(product.home)
    assert url
    ids = {document["id"] for documents in shown.values() for document in documents}
    with Redis.from_url(url, decode_responses=True) as redis:
        jobs = {_job(redis, one) for one in ids}
    adapters = {a["id"] for documents in shown.values() for document in documents for a in document["adapters"]}
    store, engine = product.home / "store", product.home / "engine-0" / "adapters"
    expected = {
        store / "documents": {f"{one}.json" for one in ids},
        store / "originals": ids,
        store / "texts": jobs,
        store / "jobs": {f"{job}.json" for job in jobs},
        store / "adapters": adapters,
    }
    for folder, names in expected.items():
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
        yield from (f"{folder.name}/{name} is left behind" for name in sorted(there - names))
        yield from (f"{folder.name}/{name} is missing" for name in sorted(names - there))
    there = {path.name for path in engine.iterdir()} if engine.exists() else set()
    yield from (f"the engine's {name} is left behind" for name in sorted(there - adapters))


def _job(redis: Redis, document: str) -> str:
    found: Any = redis.hget(document_redis_key(document), "job_key")
    return str(found).strip('"')


def of_answers(journal: Journal, shown: dict[str, list[Json]]) -> Iterator[str]:
    """Each from its document's own adapter, and from the weights of that name."""
    owns = {d["id"]: {a["id"] for a in d["adapters"]} for documents in shown.values() for d in documents}
    by_adapter: defaultdict[str | None, list[Said]] = defaultdict(list)
    for answer in journal.answers:
        by_adapter[answer.adapter].append(answer.said)
        if answer.document in owns and answer.adapter not in owns[answer.document]:
            job = {adapter.partition("-")[0] for adapter in owns[answer.document]}
            if (answer.adapter or "").partition("-")[0] not in job:  # not an earlier version either
                yield f"{answer.document} was answered from {answer.adapter}"
    for adapter, said in by_adapter.items():
        odd = [one for one in said[1:] if not agree(said[0], one)]
        yield from (f"{adapter} said {said[0]} and {one}" for one in odd)
    for one, other in combinations(by_adapter, 2):  # the base model, None, is one of them
        if weights(one) != weights(other) and is_same(by_adapter[one][0], by_adapter[other][0]):
            yield f"{one} and {other} cannot be told apart by what they said"


def of_trainings(journal: Journal) -> Iterator[str]:
    """One training, one owner's text: also of documents that were deleted since."""
    about: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for answer in journal.answers:
        text = journal.owners[answer.owner].texts.get(answer.document or "")
        if answer.adapter and text:
            about[answer.adapter.partition("-")[0]].add((answer.owner, text))
    yield from (f"{job} answered about {sorted(told)}" for job, told in about.items() if len(told) > 1)


def weights(adapter: str | None) -> str:
    return (adapter or "").partition("-")[2]


def is_same(one: Said, other: Said) -> bool:
    return len(one) == len(other) and all(
        token == other_token and abs(logprob - other_logprob) <= SAME
        for (token, logprob), (other_token, other_logprob) in zip(one, other, strict=True)
    )


def agree(one: Said, other: Said) -> bool:
    """Whether both came from the same weights. What follows a near tie may differ."""
    for (token, logprob), (other_token, other_logprob) in zip(one, other, strict=False):
        if token != other_token:
            return abs(logprob - other_logprob) < NEAR_TIE
        if abs(logprob - other_logprob) > SAME:
            return False
    return len(one) == len(other)
