"""How the lines of a process's log are written: as text, or as one JSON object each, alike for every process.

In: the setting `log_format` and the process's text format. Out: a Formatter, or the process's log on standard error.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from lift_config.contract import ADAPTER_ID, DOCUMENT_ID

LogFormat = Literal["text", "json"]
# By their shape, since every message names what it is about; an adapter's id begins with its job's key.
IDS = {
    "document": DOCUMENT_ID,
    "job": re.compile(r"\b[0-9a-f]{32}\b"),
    "adapter": ADAPTER_ID,
}


def log_to_stderr(log_format: LogFormat, text: str, *filters: logging.Filter) -> None:
    """This process's log from INFO on; as JSON with what Python itself would write: warnings, how the process ends."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(log_format, text))
    for one in filters:
        handler.addFilter(one)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if log_format == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught


def formatter(log_format: LogFormat, text: str) -> logging.Formatter:
    return JsonLines() if log_format == "json" else logging.Formatter(text)


class JsonLines(logging.Formatter):
    """ASCII only, so a line end within a message is never one of the log's."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := getattr(record, "request_id", "-")) != "-":
            line["request_id"] = request_id
        line |= {name: found[0] for name, id_ in IDS.items() if (found := id_.search(line["message"]))}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    logging.getLogger(__name__).critical("this process ends by an error", exc_info=(kind, error, traceback))
