"""Whose request it is: every document belongs to an owner, and nobody else can see, use or guess it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

DEFAULT_OWNER = "default"  # the one owner there is without API keys


def owner() -> str:
    return DEFAULT_OWNER


CurrentOwner = Annotated[str, Depends(owner)]
