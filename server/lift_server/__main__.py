"""The server's process: settings from LIFT_CONFIG and the environment, then uvicorn until SIGTERM."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from lift_config.logs import log_to_stderr
from lift_config.settings import Settings
from lift_server.app import create_app
from lift_server.heads import BoundedProtocol
from lift_server.middleware import WithRequestId

GRACE_S = 20  # answers under way at SIGTERM may finish within this; `lift-serve up` gives a part 25
START_FAILED = 3  # as uvicorn's own command says it
LOG_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s]: %(message)s"


def main() -> None:
    settings = Settings()
    log_to_stderr(settings.log_format, LOG_TEXT, WithRequestId())
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=False,  # X-Forwarded-For could make any peer look local
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config, app)
    with suppress(KeyboardInterrupt):  # uvicorn raises its signal again once it has stopped
        server.run()
    if not server.started:
        sys.exit(START_FAILED)


class _Server(uvicorn.Server):
    """Who waits for a training is told at once that the server stops; everybody else is waited for."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.lift.watcher.stop()
        await super().shutdown(sockets)


if __name__ == "__main__":
    main()
