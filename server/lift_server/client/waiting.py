"""What a person is told beside an answer, on standard error.

In: that it is waited for, and its `lift`. Out: the set that several documents became; on a terminal how far it is.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from lift_server.client.connection import Connection, Json, document_route, read_object
from lift_server.client.screen import Progress
from lift_server.exits import CommandError

OK = 200


class Wait:
    """Of one question, about a document or about several as one."""

    def __init__(self, connection: Connection, document_ids: list[str]) -> None:
        self._connection = connection
        self._asked = document_ids
        self._id = document_ids[0] if len(document_ids) == 1 else None  # a set's is not known at first
        self._is_terminal = sys.stderr.isatty()
        self._progress = Progress(is_silent=not self._is_terminal)
        self._is_shown = False

    async def look(self) -> None:
        """What keeps it from looking costs the line only: the answer is waited for all the same."""
        if self._id is not None and not self._is_terminal:
            return
        with suppress(CommandError):
            await self._look()

    async def _look(self) -> None:
        route = document_route(self._id) if self._id else "/v1/documents"
        async with self._connection.reply("GET", route) as reply:
            if reply.status != OK:
                return
            found = await read_object(reply)
        document = found if self._id else self._set(found["data"])
        if document is not None:
            self._name(document["id"])
            self._progress.show(document)
            self._is_shown = True

    def clear(self) -> None:
        """Before the answer is written there, and not once it is."""
        if self._is_shown:
            self._progress.clear()
        self._is_shown = False

    def answered(self, lift: Json) -> None:
        if lift.get("document_ids"):
            self._name(lift["document_id"])
        if self._is_terminal and (eta_s := lift.get("adapter_eta_s")):
            print(f"answered from the text; its adapter is ready in about {eta_s:.0f} s", file=sys.stderr)

    def _set(self, documents: list[Json]) -> Json | None:
        """The newest of these documents: questions go to that one."""
        wanted = sorted(self._asked)
        return next((one for one in documents if sorted(one.get("document_ids") or []) == wanted), None)

    def _name(self, set_id: str) -> None:
        if self._id is None:
            print(f"the {len(self._asked)} documents are asked as one, the set {set_id}", file=sys.stderr)
        self._id = set_id
