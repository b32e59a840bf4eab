"""The server's process: settings from LIFT_CONFIG and the environment, then uvicorn until SIGTERM."""

from __future__ import annotations

import logging
import sys

import uvicorn

from lift_config.settings import Settings
from lift_server.app import create_app

GRACE_S = 10  # answers under way at SIGTERM may finish within this


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    uvicorn.run(
        create_app(settings),
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        ws="none",
        proxy_headers=False,  # X-Forwarded-For could make any peer look local
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
    )


if __name__ == "__main__":
    main()
