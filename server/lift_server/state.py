"""What a running server is made of; built by app.py, reached by routes through `current`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from lift_config.settings import Settings
from lift_server.access import Gate
from lift_server.convert.converter import Converter
from lift_server.engine import Engine
from lift_server.hotload import Hotload
from lift_server.metrics import Metrics
from lift_server.outlook import Outlook
from lift_server.passages import Passages
from lift_server.records import Records
from lift_server.watch import JobWatcher

if TYPE_CHECKING:
    from lift_server.tracing import Traces


@dataclass(frozen=True)
class State:
    settings: Settings
    records: Records
    engine: Engine
    hotload: Hotload
    watcher: JobWatcher
    passages: Passages
    outlook: Outlook
    metrics: Metrics
    gate: Gate
    converter: Converter
    inline_keys: dict[tuple[str, ...], str]  # attachments.py: the jobs' keys of bytes that were read before
    traces: Traces | None
    started_s: float


async def current(request: Request) -> State:
    state: State = request.app.state.lift
    return state


CurrentState = Annotated[State, Depends(current)]
