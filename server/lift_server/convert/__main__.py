"""The child: a file on standard input → {"text", "places"} or {"code", "message"} as JSON on standard output.

`python -m lift_server.convert KIND LIMIT_BYTES`. It limits itself before it looks at the file: memory, processor time,
no files written. A parser's error ends it with exit code 1; the parent finds the words for it (converter.py).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from typing import Any

from lift_server.convert.clean import with_places
from lift_server.convert.kinds import Kind
from lift_server.convert.refusal import Refused, too_large

MEMORY_BYTES = 2**30
CPU_S = 60
OPEN_FILES = 32


def main() -> None:
    os.setpgid(0, 0)  # so that what it starts (OCR) is ended with it; the parent's uvloop has no `process_group`
    kind, limit_bytes = Kind(sys.argv[1]), int(sys.argv[2])
    reader = importlib.import_module(f"lift_server.convert.{kind.value}")
    _limit()
    sys.stdout.buffer.write(json.dumps(_converted(reader, limit_bytes), ensure_ascii=False).encode())


def _limit() -> None:
    for limit, value, hard in (
        (resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S, CPU_S + 1),  # SIGXCPU, by which the parent knows, comes at the first
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        allowed = resource.getrlimit(limit)[1]
        most = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
        resource.setrlimit(limit, (min(value, most), most))


def _converted(reader: Any, limit_bytes: int) -> dict[str, Any]:
    try:
        text, places = with_places(reader.read(sys.stdin.buffer.read()))
        if len(text.encode()) > limit_bytes:
            raise too_large("The file's text", limit_bytes)
    except Refused as refused:
        return {"code": refused.code, "message": refused.message}
    return {"text": text, "places": places}


if __name__ == "__main__":
    main()
