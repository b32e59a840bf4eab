"""The store: an object of ours written, read, deleted; the API keys in it, against the address that is listened on."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore

from lift_config.settings import Settings
from lift_server.doctor.finding import Finding, fail, ok, warn
from lift_server.errors import StoreUnavailable
from lift_server.keys import Keys
from lift_server.peer import is_loopback
from lift_server.store import free_bytes, in_time, open_store

PROBE = b"lift-serve doctor"
GIB = 2**30


async def store(settings: Settings) -> list[Finding]:
    url = settings.resolved_store_url
    if _is_missing(url):
        return [warn("store", f"{url} is not there yet", "the first start makes it")]
    try:
        async with in_time():
            await _probe(url)
    except (obstore.exceptions.BaseError, OSError, ValueError, StoreUnavailable) as error:
        said = " ".join(str(error).split())
        return [fail("store", f"{url}: {said}", "see to its address, credentials, rights and free space")]
    return [ok("store", f"{url}: an object was written, read and deleted"), *await _room(settings)]


async def keys(settings: Settings) -> list[Finding]:
    url, host = settings.resolved_store_url, settings.server.host
    records = [] if _is_missing(url) else await Keys(None, open_store(url)).listed()
    active = [record for record in records if record.revoked_s is None]
    if active:
        return [ok("keys", f"{len(active)} API keys are active; listening on {host}")]
    create = "`lift-serve keys create NAME` makes one"
    if records:
        return [warn("keys", "all API keys are revoked: nobody is let in", create)]
    if host == "localhost" or is_loopback(host):
        return [ok("keys", f"none: {host} answers this machine only")]
    return [warn("keys", f"listening on {host} without API keys: other machines are refused", create)]


async def _room(settings: Settings) -> list[Finding]:
    """Nothing to say of a service."""
    free, least = await free_bytes(open_store(settings.resolved_store_url), settings), settings.server.min_free_bytes
    if free is None:
        return []
    what = f"{free / GIB:.1f} GiB free"
    if free < least:
        return [fail("store", f"{what}: uploads are refused", "make room, or lower server.min_free_bytes")]
    if free < 2 * least:
        return [warn("store", f"{what}; below {least / GIB:.1f} uploads are refused", "make room")]
    return [ok("store", what)]


def _is_missing(url: str) -> bool:
    """A folder that opening would make: this command makes none."""
    return url.startswith("file:") and not Path(unquote(urlsplit(url).path)).exists()


async def _probe(url: str) -> None:
    path, opened = f"doctor/{secrets.token_hex(8)}", open_store(url)
    await obstore.put_async(opened, path, PROBE)
    try:
        read = bytes(await (await obstore.get_async(opened, path)).bytes_async())
    finally:
        await obstore.delete_async(opened, path)
    if read != PROBE:
        raise ValueError("what was written is not what was read")
