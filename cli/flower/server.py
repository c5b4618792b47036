"""Flower on our Celery application: who works, what runs, and the door to start a run over HTTP.

    POST /api/task/async-apply/sync.trigger   {"args": ["a binding's name"]}

The tasks that Flower has seen survive its restart in a file of the data directory; the history of runs is in the
database. Its pages can stop workers and start runs, so it asks for a password from the first start on. The password
is never an argument (those are visible to every user of the machine). `/metrics` and `/healthcheck` are open by
Flower's design.

Flower's own options may be set its own way, by `FLOWER_...` variables or the file `FLOWER_CONF` names; the
address, the port and the password are the settings' alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from cli.flower.credentials import Credentials, credentials
from cli.stack import ports
from config import log_limit
from config.logging import configure
from config.pulse import BEAT_SECONDS, Pulse
from config.settings import Settings
from models.errors import ConfigurationError
from models.private_files import make_private_dir

STATE_FILE = "flower.state"
DEFAULTS: dict[str, Any] = {
    "tasks_columns": "name,args,state,received,started,runtime,worker,uuid",
    "max_tasks": 10_000,
    "persistent": True,
    "state_save_interval": 5 * 60 * 1000,  # ms; it is saved at the end as well
    "purge_offline_workers": 24 * 3600,
}


def run(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    configure(settings, "flower")
    log_limit.limit("tornado.access", "tornado.application", "tornado.general", "asyncio")
    # It warns four times whenever no worker is there to be asked, at each start for one.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    known = credentials(settings)
    listening = ports.FLOWER.handed_over()
    if listening is None:
        listening = ports.FLOWER.open(settings)
        announce(ports.url_of(listening), known)
    listening.setblocking(False)
    asyncio.run(_serve(listening, _options(known, settings), settings))
    return 0


def announce(url: str, known: Credentials) -> None:
    """Where it is; the password only if it was made just now."""
    password = f"password {known.password} (shown this once)" if known.made else "password as before"
    print(f"Flower is at {url}, user {known.user}, {password}", file=sys.stderr)


def _options(known: Credentials, settings: Settings) -> Any:
    """Flower's options: ours, then its file, then its variables, then what is not open to them."""
    from flower.command import apply_env_options, extract_settings
    from flower.options import options
    from tornado.options import Error, parse_config_file

    for name, value in DEFAULTS.items():
        setattr(options, name, value)
    make_private_dir(settings.data_dir)
    options.db = str(settings.data_dir / STATE_FILE)
    file = os.environ.get("FLOWER_CONF")
    try:
        if file:
            parse_config_file(str(Path(file).absolute()), final=False)
        apply_env_options()
    except Exception as error:  # noqa: BLE001 - the file is Python: it may raise anything
        raise ConfigurationError(
            "SETTING_INVALID",
            field="FLOWER_CONF, or a FLOWER_… variable",
            value=file or "…",
            # Tornado's words name an option and its type; others may hold a value.
            hint=f"Flower does not take it ({error if isinstance(error, Error) else type(error).__name__}).",
        ) from None
    # With an identity provider (`auth`) Flower asks that one, and would ask for the password as well.
    options.basic_auth = [] if options.auth else [f"{known.user}:{known.password}"]
    extract_settings()
    return options


async def _serve(listening: socket.socket, options: Any, settings: Settings) -> None:
    from flower.app import Flower
    from flower.urls import handlers as known_handlers
    from flower.urls import settings as application_settings

    from cli.flower import api, handlers, loader, pages, tasks
    from cli.flower.http_server import FlowerServer
    from worker.app import app

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app.set_default()  # Flower looks a result up by its id alone
    tasks.name_the_actor()
    database = handlers.open_database(settings)
    known_handlers[0:0] = [*pages.handlers(database), *api.handlers(database)]
    application_settings["template_loader"] = loader.CohortsLoader(application_settings["template_path"])
    application_settings.update(pages.settings(database))
    flower = Flower(capp=app, options=options, **application_settings)
    server = FlowerServer(flower, ssl_options=flower.ssl_options, xheaders=options.xheaders)
    server.add_socket(listening)
    flower.events.start()
    flower.started = True
    flower.update_workers()
    pulse = Pulse(settings.data_dir, "flower")
    while not stop.is_set():
        pulse.beat()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), BEAT_SECONDS)
    pulse.stop()
    server.stop()
    try:
        flower.events.stop()
    except OSError as error:
        logging.getLogger("flower.events").error("Flower's state was not saved: %s", error.strerror)  # noqa: TRY400
    flower.executor.shutdown(wait=False, cancel_futures=True)
