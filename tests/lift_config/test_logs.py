"""A log's line as JSON: what it is about by fields, whatever stands in its message."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from lift_config.logs import formatter

DOCUMENT, JOB = f"doc_{'1' * 24}", "a" * 32


def line(message: str, *args: object, **fields: Any) -> dict[str, Any]:
    record = logging.LogRecord(
        "lift_server.upload", logging.INFO, __file__, 1, message, args, fields.pop("exc_info", None)
    )
    vars(record).update(fields)
    written = formatter("json", "").format(record)
    assert written.isascii()
    assert len(written.splitlines()) == 1
    told: dict[str, Any] = json.loads(written)
    return told


def test_ids_are_fields() -> None:
    told = line("%s uploaded: %d bytes, job %s is %s", DOCUMENT, 9, JOB, "queued", request_id="mine", created=1.5)
    assert told == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "INFO",
        "logger": "lift_server.upload",
        "message": f"{DOCUMENT} uploaded: 9 bytes, job {JOB} is queued",
        "request_id": "mine",
        "document": DOCUMENT,
        "job": JOB,
    }


def test_an_adapter_tells_its_job() -> None:
    told = line("adapter %s removed", f"{JOB}-{'2' * 12}")
    assert (told["adapter"], told["job"]) == (f"{JOB}-{'2' * 12}", JOB)


def test_what_is_not_known_is_left_out() -> None:
    assert line("started", request_id="-").keys() == {"time", "level", "logger", "message"}
    assert "job" not in line("req_%s, key %s", JOB, 2 * JOB)  # a request's id, a digest


def test_line_ends_and_tracebacks_stay_within_the_line() -> None:
    try:
        raise ValueError("of\n\u2028two lines")
    except ValueError:
        told = line("not\nread: \ud800", exc_info=sys.exc_info())
    assert told["message"] == "not\nread: \ud800"
    assert told["exception"].endswith("ValueError: of\n\u2028two lines")
    assert told["exception"].startswith("Traceback")
