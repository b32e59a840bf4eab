"""The store by its URL: a folder or an S3-like service (obstore)."""

from __future__ import annotations

from obstore.store import ObjectStore, from_url


def open_store(url: str) -> ObjectStore:
    """A folder is made where there is none, and folders within it go with the last object in them; other kinds of
    stores refuse these two options."""
    return from_url(url, mkdir=True, automatic_cleanup=True) if url.startswith("file:") else from_url(url)
