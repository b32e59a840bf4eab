"""A key replaced or revoked by its holder over HTTP: only that one, at once, whoever else does so at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.lift_server.holders import Holder, holder, keys_of
from tests.lift_server.test_keys import listed, refusal
from tests.lift_server.test_limits import TEXT, ended

from lift_config.contract import KEYS_KEY, window_redis_key
from lift_server.keys import REPLACED, REPLACED_MS, KeyRecord, Keys, Limits

ROUTES = (("POST", "/v1/keys/me/replace"), ("DELETE", "/v1/keys/me"))


async def replaced(front_end: Any, mine: Holder) -> Holder:
    answer = await mine.call("POST", "/v1/keys/me/replace")
    assert answer.status_code == 200, answer.text
    return Holder(front_end, answer.json()["key"], mine.record)


async def active(front_end: Any, mine: Holder) -> int:
    """Records of this key that let somebody in."""
    records = await keys_of(front_end).all()
    return len([one for one in records if one.id == mine.record.id and one.revoked_s is None])


async def test_a_new_secret_takes_the_place_of_the_one_shown(start: Any) -> None:
    front_ends = [await start(), await start()]
    mine = await holder(front_ends[0], requests_per_minute=60, documents=7)
    document = (await mine.upload(TEXT)).json()
    before = (await mine.get("/v1/keys/me")).json()
    answer = await mine.call("POST", "/v1/keys/me/replace")
    told = answer.json()
    secret = told.pop("key")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (told["id"], told["name"], told["created_at"]) == (before["id"], before["name"], before["created_at"])
    assert secret.startswith("sk-lift-")
    assert len(secret) == len(mine.secret)
    for front_end in front_ends:
        new = Holder(front_end, secret, mine.record)
        assert refusal(await listed(front_end, **mine.headers)) == (401, "invalid_api_key")
        assert (await new.get(f"/v1/documents/{document['id']}")).status_code == 200
    limits = (await new.get("/v1/keys/me")).json()["limits"]
    assert limits["documents"] == {"used": 1, "limit": 7}
    assert limits["requests_per_minute"]["used"] > before["limits"]["requests_per_minute"]["used"]  # no new window
    assert secret not in (await new.get("/v1/keys/me")).text


async def test_neither_secret_is_kept_and_the_commands_know_one_key(front_end: Any, store: Path, redis: Any) -> None:
    mine = await holder(front_end)
    new = await replaced(front_end, mine)
    kept = "".join(path.read_text() + path.name for path in (store / "keys").iterdir())
    for key in await redis.keys():
        kept += key.decode() + repr(await redis.dump(key))
    assert not [one.secret for one in (mine, new) if one.secret.removeprefix("sk-lift-") in kept]
    assert [(one.id, one.revoked_s) for one in await keys_of(front_end).listed()] == [(mine.record.id, None)]
    await keys_of(front_end).revoke(mine.record.id)  # by the id that the operator has always known
    assert refusal(await new.get("/v1/keys/me")) == (401, "invalid_api_key")
    assert [one.revoked_s is None for one in await keys_of(front_end).listed()] == [False]


async def test_a_holder_ends_the_key_it_shows_and_its_documents_stay(front_end: Any) -> None:
    mine = await holder(front_end)
    second = await holder(front_end, mine.record.owner)
    document = (await mine.upload(TEXT)).json()
    answer = await mine.call("DELETE", "/v1/keys/me")
    assert answer.json() == {"object": "key.revoked", "id": mine.record.id}
    assert refusal(await mine.call("DELETE", "/v1/keys/me")) == (401, "invalid_api_key")
    assert (await second.get(f"/v1/documents/{document['id']}")).status_code == 200
    await second.call("DELETE", "/v1/keys/me")
    assert refusal(await listed(front_end)) == (401, "invalid_api_key")  # the last one's end opens nothing


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_elses_key_is_touched(front_end: Any, method: str, path: str) -> None:
    """Neither another owner's, nor the owner's own other one, whatever the request names."""
    mine, other = await holder(front_end), await holder(front_end)
    second = await holder(front_end, mine.record.owner)
    body = {"id": other.record.id, "key": other.secret, "owner": other.record.owner}
    answer = await mine.call(method, path, json=body, params={"id": other.record.id})
    assert answer.status_code == 200
    assert other.record.id not in answer.text
    for one in (other, second):
        assert (await one.get("/v1/keys/me")).json()["id"] == one.record.id
    assert (await other.call(method, f"/v1/keys/{mine.record.id}")).status_code in (404, 405)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_a_key_there_is_none_to_change(front_end: Any, method: str, path: str) -> None:
    assert refusal(await front_end.client.request(method, path)) == (404, "key_not_found")
    mine = await holder(front_end)
    assert refusal(await front_end.client.request(method, path)) == (401, "invalid_api_key")
    assert await active(front_end, mine) == 1


async def test_it_is_done_once_an_hour(front_end: Any, redis: Any) -> None:
    """Each time leaves a record that must stay."""
    mine = await holder(front_end)
    new = await replaced(front_end, mine)
    refused = await new.call("POST", "/v1/keys/me/replace")
    assert refusal(refused) == (429, "rate_limit_exceeded")
    assert 3590 <= int(refused.headers["Retry-After"]) <= REPLACED_MS / 1000
    assert (await new.get("/v1/keys/me")).status_code == 200
    assert await redis.delete(window_redis_key(REPLACED, mine.record.id)) == 1
    assert (await (await replaced(front_end, new)).get("/v1/keys/me")).status_code == 200
    assert await active(front_end, mine) == 1


async def test_spent_tokens_do_not_keep_a_leaked_key_from_being_replaced(front_end: Any, redis: Any) -> None:
    mine = await holder(front_end, tokens_per_minute=1)
    assert (await mine.ask()).status_code == 200
    assert refusal(await mine.ask()) == (429, "rate_limit_exceeded")
    new = await replaced(front_end, mine)
    assert refusal(await new.ask()) == (429, "rate_limit_exceeded")  # and gives none back
    await ended(redis, "tokens", mine)
    assert (await new.ask()).status_code == 200


async def test_a_new_secret_does_not_make_its_limits_the_owners(front_end: Any) -> None:
    """An owner's newest key says how many documents there may be; an old key stays old."""
    mine = await holder(front_end, documents=100)
    await keys_of(front_end).create("newer", mine.record.owner, Limits(documents=7))
    new = await replaced(front_end, mine)
    assert (await new.get("/v1/keys/me")).json()["limits"]["documents"]["limit"] == 7


async def test_of_those_at_the_same_moment_one_is_replaced(front_end: Any) -> None:
    """By as many servers."""
    mine = await holder(front_end)
    asked = [keys_of(front_end).replace_secret(mine.record) for _ in range(8)]
    told = await asyncio.gather(*asked, return_exceptions=True)
    (secret,) = [one[0] for one in told if isinstance(one, tuple)]
    assert [type(one) for one in told if not isinstance(one, tuple)] == [LookupError] * 7
    assert await active(front_end, mine) == 1
    assert (await Holder(front_end, secret, mine.record).get("/v1/keys/me")).status_code == 200


class Interrupted(Keys):
    """`between` happens just before the write of this number."""

    def __init__(self, keys: Keys, at: int, between: Callable[[], Awaitable[object]]) -> None:
        super().__init__(keys._redis, keys._store)
        self._left, self._between = at, between

    async def _put(self, record: KeyRecord) -> None:
        self._left -= 1
        if not self._left:
            await self._between()
        await super()._put(record)


@pytest.mark.parametrize("at", [1, 2])
async def test_one_that_is_revoked_while_it_is_replaced_stays_so(front_end: Any, at: int) -> None:
    mine, keys = await holder(front_end), keys_of(front_end)
    renewing = Interrupted(keys, at, lambda: keys.revoke(mine.record.id))
    secret = mine.secret
    with suppress(LookupError):
        secret, _ = await renewing.replace_secret(mine.record)
    assert (secret != mine.secret) is (at == 2)  # the holder hears of it where it can still be told
    assert await active(front_end, mine) == 0
    for one in (mine, Holder(front_end, secret, mine.record)):
        assert refusal(await one.get("/v1/keys/me")) == (401, "invalid_api_key")


async def test_whoever_replaces_waits_for_another_who_does(front_end: Any, redis: Any) -> None:
    mine, begun = await holder(front_end), asyncio.Event()
    others: list[asyncio.Task[Any]] = []

    async def write() -> None:
        begun.set()

    async def sets() -> int:
        return int((await redis.info("commandstats"))["cmdstat_set"]["calls"])

    async def come() -> None:
        before = await sets()
        others.append(asyncio.create_task(Interrupted(keys_of(front_end), 1, write).replace_secret(mine.record)))
        while not begun.is_set() and await sets() < before + 2:  # asking for the lock again
            pass

    _, fresh = await Interrupted(keys_of(front_end), 2, come).replace_secret(mine.record)
    (told,) = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(told, LookupError)
    assert not begun.is_set()
    assert [one.digest for one in await keys_of(front_end).all() if one.revoked_s is None] == [fresh.digest]


async def test_one_that_is_replaced_while_it_is_revoked_ends_too(front_end: Any) -> None:
    mine, keys = await holder(front_end), keys_of(front_end)
    await Interrupted(keys, 1, lambda: keys.replace_secret(mine.record)).revoke(mine.record.id)
    assert await active(front_end, mine) == 0


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("is_deleted", [True, False], ids=["deleted", "spoilt"])
async def test_one_whose_record_is_lost_cannot_be_changed(
    front_end: Any, store: Path, method: str, path: str, is_deleted: bool
) -> None:
    mine = await holder(front_end)
    await holder(front_end)
    record = store / "keys" / f"{mine.record.digest}.json"
    record.unlink() if is_deleted else record.write_text("{")
    assert refusal(await mine.call(method, path)) == (401, "invalid_api_key")


async def test_where_redis_cannot_be_told_the_old_one_is_still_good(front_end: Any, redis: Any) -> None:
    mine = await holder(front_end)
    await redis.set(KEYS_KEY, "no number")  # INCR fails
    assert (await mine.call("POST", "/v1/keys/me/replace")).status_code >= 500
    await redis.set(KEYS_KEY, 1)
    assert (await mine.get("/v1/keys/me")).status_code == 200
    new = await replaced(front_end, mine)
    await keys_of(front_end).revoke(mine.record.id)
    assert await active(front_end, mine) == 0  # nor what was left of the first try
    assert refusal(await new.get("/v1/keys/me")) == (401, "invalid_api_key")
