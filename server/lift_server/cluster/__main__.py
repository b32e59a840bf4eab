"""`python -m lift_server.cluster ADDRESS`: keeps engines and workers on a Ray cluster, until SIGTERM or SIGINT.

In: Settings, Ray's address. It keeps nothing of its own: the next one finds what this one started.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from lift_config.logs import log_to_stderr
from lift_config.settings import Settings
from lift_server.cluster.fleet import Fleet, FleetError
from lift_server.cluster.keep import keep
from lift_server.launcher.up import Commands


def main(commands: Commands | None = None) -> None:
    settings = Settings()
    log_to_stderr(settings.log_format, "%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        fleet = Fleet(settings, sys.argv[1], commands)
        asyncio.run(_until_stopped(settings, fleet))
    except FleetError as error:
        sys.exit(str(error))


async def _until_stopped(settings: Settings, fleet: Fleet) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet.claim()
    keeping = asyncio.create_task(keep(settings, fleet))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({keeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.is_set():
        keeping.result()  # raises what it ended with
    keeping.cancel()
    fleet.close()


if __name__ == "__main__":
    main()
