"""`lift-serve bench`: in: a file, or a document that is there; out: how long the first token of an answer takes.

Cold: the file, as one that was never seen, is uploaded and asked at once; the clock starts with the upload. Warm: the
same question again and again, one at a time. Measured here, so the way to the server and back is part of it.
"""

from __future__ import annotations

import statistics
import time
import uuid
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lift_server.client.ask import base_model, chunks, question_body, said, turn
from lift_server.client.connection import Connection, Json, document_route
from lift_server.client.screen import show_json
from lift_server.client.upload import File, read_file, send
from lift_server.exits import DONE, CommandError, UsageError

LONGEST_WAIT_S = 86_400.0  # for the training; the most that the server takes


@dataclass(frozen=True)
class Timed:
    """One answer. `tokens` came in `seconds` after the first."""

    ttft_s: float
    tokens: int
    seconds: float
    lift: Json


async def bench(connection: Connection, args: Namespace, _: Path) -> int:
    if (args.file is None) == (args.document is None):
        raise UsageError("name a FILE, or a document with --document")
    one = Bench(connection, await base_model(connection), args.question, args.questions)
    if args.document:
        measured = {"document_id": args.document, "cold": None, "warm": await one.warm(args.document)}
    else:
        measured = await one.of_file(read_file(Path(args.file)))
    if args.json:
        show_json({"object": "bench"} | measured)
    else:
        _tell(measured)
    return DONE


@dataclass(frozen=True)
class Bench:
    connection: Connection
    model: str
    question: str
    questions: int

    async def of_file(self, file: File) -> Json:
        """A title of its own makes it new to the server, whatever was uploaded before; it is deleted afterwards."""
        began_s = time.perf_counter()
        title = f"bench {uuid.uuid4().hex[:12]}"
        document_id = (await send(self.connection, file, title, recipe=None))["id"]
        try:
            first = await self._asked(document_id, began_s)
            cold = {"ttft_s": round(first.ttft_s, 4), **await self._version(document_id, first)}
            return {"document_id": document_id, "cold": cold, "warm": await self.warm(document_id)}
        finally:
            await self.connection.json("DELETE", document_route(document_id))

    async def warm(self, document_id: str) -> Json:
        await self._asked(document_id, time.perf_counter())  # brings the adapter into the engine; not counted
        answers = [await self._asked(document_id, time.perf_counter()) for _ in range(self.questions)]
        times_s = [one.ttft_s for one in answers]
        cuts_s = statistics.quantiles(times_s, n=20, method="inclusive") if len(times_s) > 1 else times_s
        tokens, seconds = sum(one.tokens for one in answers), sum(one.seconds for one in answers)
        return {
            "questions": len(answers),
            "ttft_p50_s": round(statistics.median(times_s), 4),
            "ttft_p95_s": round(cuts_s[-1], 4),
            "tokens_per_s": round(tokens / seconds, 1) if tokens else None,
            **await self._version(document_id, answers[-1]),
        }

    async def _asked(self, document_id: str, began_s: float) -> Timed:
        messages = [turn("user", self.question)]
        body = question_body(self.model, [document_id], "adapter", messages, LONGEST_WAIT_S)
        first_s: float | None = None
        usage: Json = {}
        lift: Json = {}
        async for chunk in chunks(self.connection, body | {"stream_options": {"include_usage": True}}):
            if chunk is None:
                continue
            if first_s is None and said(chunk):
                first_s = time.perf_counter()
            usage, lift = chunk.get("usage") or usage, chunk.get("lift", lift)
        if first_s is None:
            raise CommandError("the answer is empty: there is no first token to time; ask another --question")
        return Timed(first_s - began_s, usage["completion_tokens"] - 1, time.perf_counter() - first_s, lift)

    async def _version(self, document_id: str, answer: Timed) -> Json:
        """Which one answered: a time says little without the recipe behind it."""
        adapters = (await self.connection.json("GET", document_route(document_id)))["adapters"]
        version = answer.lift["adapter_version"]
        return {"version": version, "recipe": next(one["recipe"] for one in adapters if one["version"] == version)}


def _tell(measured: Json) -> None:
    cold, warm = measured["cold"], measured["warm"]
    if cold:
        print(f"cold: first token {cold['ttft_s']:.3f} s after the upload began (recipe {cold['recipe']})")
    rate = f", {warm['tokens_per_s']} tokens/s" if warm["tokens_per_s"] else ""
    print(
        f"warm: first token p50 {warm['ttft_p50_s']:.3f} s, p95 {warm['ttft_p95_s']:.3f} s, "
        f"of {warm['questions']} questions{rate} (recipe {warm['recipe']})"
    )
