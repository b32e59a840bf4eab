"""Who holds a key: made as `lift-serve keys create` makes it, used as a stock client uses it."""

from __future__ import annotations

from typing import Any

import httpx2

from lift_server.keys import KeyRecord, Keys, Limits

BASE = "smollm2-135m-instruct"


class Holder:
    """`headers` show the key; `record` is what the server knows of it."""

    def __init__(self, front_end: Any, secret: str, record: KeyRecord) -> None:
        self.secret, self.record = secret, record
        self.headers = {"Authorization": f"Bearer {secret}"}
        self._client: httpx2.AsyncClient = front_end.client

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {**options.pop("headers", {}), **self.headers}
        return await self._client.request(method, path, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.call("GET", path, **options)

    async def upload(self, text: str, **fields: Any) -> httpx2.Response:
        return await self.call("POST", "/v1/documents", json={"text": text, **fields})

    async def ask(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        body = {"model": BASE, "messages": [{"role": "user", "content": "What is the answer?"}], **fields}
        return await self.call("POST", "/v1/chat/completions", json=body, headers=headers or {})


def keys_of(front_end: Any) -> Keys:
    """The command's, not the server's own."""
    records = front_end.app.state.lift.records
    return Keys(records.redis, records.store)


async def holder(front_end: Any, owner: str | None = None, **limits: int) -> Holder:
    secret, record = await keys_of(front_end).create("a name", owner, Limits(**limits))
    return Holder(front_end, secret, record)
