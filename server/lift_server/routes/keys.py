"""/v1/keys/me: whose key a request shows, its limits, and what of them is used; replaced, or revoked, by its holder.

Nothing here reaches another key. Keys are made, and those of others revoked, at the shell only.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lift_server.errors import InvalidApiKey, KeyNotFound
from lift_server.keys import KeyRecord
from lift_server.limits import REQUESTS, TOKENS, Window
from lift_server.owner import CurrentOwner
from lift_server.quota import Quota, Use
from lift_server.schemas import KeyObject, KeyRevoked, NewKeyObject, UseObject
from lift_server.state import CurrentState, State

router = APIRouter(prefix="/v1/keys/me")


@router.get("")
async def me(request: Request, state: CurrentState, owner: CurrentOwner) -> KeyObject:
    """The key of this request, never its secret. Without keys `id`, `name` and `created_at` are null. A limit of 0 is
    none; requests and tokens are counted only where there is one, documents, bytes and trainings are the owner's."""
    return await _key_object(request, state, owner)


@router.post("/replace")
async def replace(request: Request, response: Response, state: CurrentState, owner: CurrentOwner) -> NewKeyObject:
    """A new secret for the key of this request, in `key`, told this once; the one shown is refused from now on. Id,
    name, owner and limits stay, and what is used of them. Once an hour. Where the answer gets lost nobody has the new
    one: then the operator makes another key for the owner."""
    try:
        secret, _ = await state.gate.keys.replace_secret(_shown(request))
    except LookupError as error:  # this moment
        raise InvalidApiKey(is_given=True) from error
    response.headers["Cache-Control"] = "no-store"
    return NewKeyObject(**(await _key_object(request, state, owner)).model_dump(), key=secret)


@router.delete("")
async def revoke(request: Request, state: CurrentState, _: CurrentOwner) -> KeyRevoked:
    """The key of this request is refused from now on. Documents stay, for the owner's other keys."""
    try:
        return KeyRevoked(id=(await state.gate.keys.revoke(_shown(request).id)).id)
    except LookupError as error:  # its record is gone from the store, or spoilt
        raise InvalidApiKey(is_given=True) from error


async def _key_object(request: Request, state: State, owner: str) -> KeyObject:
    key: KeyRecord | None = request.state.key
    windows: list[Window] = request.state.windows
    use = {f"{kind}_per_minute": Use(0, 0) for kind in (REQUESTS, TOKENS)}
    use |= {f"{window.kind}_per_minute": Use(window.used, window.limit) for window in windows}
    use |= await Quota(state.records.redis, owner, state.settings.limits).use()
    return KeyObject(
        id=key and key.id,
        name=key and key.name,
        created_at=key and int(key.created_s),
        limits={name: UseObject(used=one.used, limit=one.limit) for name, one in use.items()},
    )


def _shown(request: Request) -> KeyRecord:
    key: KeyRecord | None = request.state.key
    if key is None:
        raise KeyNotFound
    return key
