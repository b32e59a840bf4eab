"""/v1/keys/me: whose key a request shows, its limits, and what of them is used. Keys are made at the shell only."""

from __future__ import annotations

from fastapi import APIRouter, Request

from lift_server.keys import KeyRecord
from lift_server.limits import REQUESTS, TOKENS, Window
from lift_server.owner import CurrentOwner
from lift_server.quota import Quota, Use
from lift_server.schemas import KeyObject, UseObject
from lift_server.state import CurrentState

router = APIRouter(prefix="/v1/keys")


@router.get("/me")
async def me(request: Request, state: CurrentState, owner: CurrentOwner) -> KeyObject:
    """The key of this request, never its secret. Without keys `id`, `name` and `created_at` are null. A limit of 0 is
    none; requests and tokens are counted only where there is one, documents, bytes and trainings are the owner's."""
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
