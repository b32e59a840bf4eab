"""/v1/keys/me: whose key it is, what it may use and has used; never the secret, never another's."""

from __future__ import annotations

from typing import Any

from tests.lift_server.holders import holder, keys_of
from tests.lift_server.test_limits import TEXT

from lift_server.keys import Limits


async def test_a_key_is_told_its_name_its_limits_and_their_use(front_end: Any, worker: Any) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 1000, "documents": 10, "bytes": 10_000, "training": 4}
    mine, other = await holder(front_end, **limits), await holder(front_end)
    await mine.upload(TEXT)
    await other.upload(TEXT * 2)
    answer = await mine.get("/v1/keys/me")
    assert answer.status_code == 200
    used = {"requests_per_minute": 2, "tokens_per_minute": 0, "documents": 1, "bytes": len(TEXT), "training": 1}
    assert answer.json() == {
        "object": "key",
        "id": mine.record.id,
        "name": "a name",
        "created_at": int(mine.record.created_s),
        "limits": {name: {"used": used[name], "limit": limit} for name, limit in limits.items()},
    }
    assert mine.secret not in answer.text
    assert mine.record.owner not in answer.text
    assert mine.record.digest not in answer.text
    await worker.train()  # the newest: the other's
    assert (await other.get("/v1/keys/me")).json()["limits"]["training"] == {"used": 0, "limit": 0}
    assert (await mine.get("/v1/keys/me")).json()["limits"]["training"] == {"used": 1, "limit": 4}


async def test_what_owners_have_is_limited_by_their_newest_key(front_end: Any) -> None:
    mine = await holder(front_end, documents=1)
    await keys_of(front_end).create("newer", mine.record.owner, Limits(documents=7))
    assert (await mine.get("/v1/keys/me")).json()["limits"]["documents"] == {"used": 0, "limit": 7}


async def test_without_keys_there_is_none(start: Any) -> None:
    front_end = await start(limits={"documents": 3})
    await front_end.upload(TEXT)
    told = (await front_end.client.get("/v1/keys/me")).json()
    assert (told["id"], told["name"], told["created_at"]) == (None, None, None)
    assert told["limits"]["documents"] == {"used": 1, "limit": 3}


async def test_a_wrong_or_revoked_key_is_told_nothing(front_end: Any) -> None:
    mine = await holder(front_end)
    assert (await front_end.client.get("/v1/keys/me")).status_code == 401
    await keys_of(front_end).revoke(mine.record.id)
    assert (await mine.get("/v1/keys/me")).json()["error"]["code"] == "invalid_api_key"
