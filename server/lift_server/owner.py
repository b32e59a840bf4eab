"""Whose request it is: every document belongs to an owner, and nobody else can see, use or guess it.

access.py has found out who that is before a route runs; a route that asks for `CurrentOwner` without it fails.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

BEARER = HTTPBearer(
    scheme_name="api_key", description="An API key. Needed as soon as the operator has made one.", auto_error=False
)  # for the OpenAPI document alone


async def owner(request: Request, _: Annotated[object, Security(BEARER)]) -> str:
    name: str = request.state.owner
    return name


CurrentOwner = Annotated[str, Depends(owner)]
