"""What crosses process boundaries comes out as it went in, and what is not whole is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from lift_config.contract import (
    ACTIVE,
    ADAPTER_FILES,
    AdapterRecord,
    DocumentRecord,
    Failure,
    JobRecord,
    Manifest,
    ManifestFile,
    Progress,
    Status,
    adapter_id,
)
from lift_config.phases import Phase, Timeline

FRESH = JobRecord("k" * 32, "default", None, "org/model", "main", "fast", received_s=1795430400.123456)
WHOLE = replace(
    FRESH,
    title='Ünïcode "title"\n',
    status=Status.FAILED,
    tokens=7,
    fence=3,
    progress=Progress("train", 0.25, 12.5, 3, 4, 5),
    timeline=Timeline({Phase.QUEUE: (1.5, 2.5), Phase.TRAIN: (3.5, None)}),
    adapters=(AdapterRecord("id", 1, "org/model", "fast", 16, 99, 4.25),),
    error=Failure("no_tasks", "why", 3, 5.5),
)
DOCUMENT = DocumentRecord(
    "doc_1", "default", "k" * 32, None, "a.txt", 5, "ab" * 32, 1795430400.5, {"a": "ö"}, expires_s=None
)


@pytest.mark.parametrize("job", [FRESH, WHOLE], ids=["fresh", "whole"])
def test_a_job_survives_both_forms(job: JobRecord) -> None:
    assert JobRecord.from_redis(job.to_redis()) == job
    assert JobRecord.from_json(job.to_json()) == job
    assert JobRecord.from_json(job.to_json().encode()) == job


@pytest.mark.parametrize("job", [FRESH, WHOLE], ids=["fresh", "whole"])
async def test_a_job_survives_redis_itself(redis: Redis, job: JobRecord) -> None:
    await redis.hset("job", mapping=dict(job.to_redis().items()))
    found: Any = await redis.hgetall("job")
    assert JobRecord.from_redis({name.decode(): value.decode() for name, value in found.items()}) == job


def test_the_fence_and_the_status_are_plain_json_in_redis() -> None:
    fields = WHOLE.to_redis()  # a worker's fence check compares them as they are
    assert (fields["fence"], fields["status"]) == ("3", '"failed"')


def test_a_document_survives_both_forms() -> None:
    for document in (DOCUMENT, replace(DOCUMENT, title="T", expires_s=1.5, metadata={}, document_ids=["a", "b"])):
        assert DocumentRecord.from_redis(document.to_redis()) == document
        assert DocumentRecord.from_json(document.to_json()) == document


@pytest.mark.parametrize("missing", ["key", "status", "recipe", "timeline"])
def test_half_a_job_is_refused(missing: str) -> None:
    fields = WHOLE.to_redis()
    del fields[missing]
    with pytest.raises((TypeError, ValueError, KeyError)):
        JobRecord.from_redis(fields)


def test_a_status_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="sleeping"):
        JobRecord.from_redis(WHOLE.to_redis() | {"status": '"sleeping"'})


def test_changing_a_job_leaves_the_old_one() -> None:
    assert FRESH.changed(status=Status.READY).status is Status.READY
    assert FRESH.status is Status.QUEUED
    assert {status for status in Status if status in ACTIVE} == {Status.QUEUED, Status.TRAINING}


def manifest() -> Manifest:
    digest = "0123456789ab" + "c" * 52
    files = {name: ManifestFile(10, digest) for name in ADAPTER_FILES}
    return Manifest(adapter_id("k" * 32, digest), "org/model", "main", 16, files)


def test_a_manifest_survives_json() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()


def test_a_signed_manifest_is_known_by_its_secret_and_nothing_else() -> None:
    signed = Manifest.from_json(manifest().signed("new").to_json())
    assert signed.is_signed_with(["new"])
    assert signed.is_signed_with(["old", "new"])
    assert not signed.is_signed_with(["old"])
    assert not signed.is_signed_with([])
    assert not manifest().is_signed_with(["new", ""])
    assert not replace(signed, signature="\ud800ö").is_signed_with(["new"])


@pytest.mark.parametrize("change", [{"adapter_id": "x"}, {"base_model": "x"}, {"base_revision": "x"}, {"rank": 1}])
def test_no_part_of_a_signed_manifest_can_be_changed(change: dict[str, Any]) -> None:
    assert not replace(manifest().signed("s"), **change).is_signed_with(["s"])


@pytest.mark.parametrize("name", ADAPTER_FILES)
@pytest.mark.parametrize("change", [{"sha256": "f" * 64}, {"size_bytes": 11}])
def test_no_file_of_a_signed_manifest_can_be_changed(name: str, change: dict[str, Any]) -> None:
    signed = manifest().signed("s")
    files = signed.files | {name: replace(signed.files[name], **change)}
    assert not replace(signed, files=files).is_signed_with(["s"])


def test_a_signature_that_is_no_text_is_refused() -> None:
    values = json.loads(manifest().to_json()) | {"signature": 1}
    with pytest.raises(ValueError, match="signature"):
        Manifest.from_json(json.dumps(values))


def test_a_manifest_with_other_files_is_refused() -> None:
    values = json.loads(manifest().to_json())
    values["files"]["adapter_model.bin"] = values["files"][ADAPTER_FILES[0]]  # pickle
    with pytest.raises(ValueError, match=r"adapter_model\.bin"):
        Manifest.from_json(json.dumps(values))


def test_a_manifest_of_other_weights_is_refused() -> None:
    values = json.loads(manifest().to_json())
    values["files"][ADAPTER_FILES[0]]["sha256"] = "f" * 64
    with pytest.raises(ValueError, match="checksum"):
        Manifest.from_json(json.dumps(values))
