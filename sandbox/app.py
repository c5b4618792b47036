"""Starting and stopping: two listening ports, one event loop, one line of JSON when ready.

`serve` and `main` are the only things the product's command line may use. A SIGTERM or a Ctrl-C ends it
promptly, with exit code 0 and nothing left behind: there are no files and no child processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import orjson
import uvicorn

from sandbox import presets, switches, vendor_routes
from sandbox.amplitude.project import KEYS
from sandbox.control import routes
from sandbox.marketing_cloud.tenant import CLIENT_ID, CLIENT_SECRET
from sandbox.middleware import FaultMiddleware
from sandbox.world import World

_TICK = 0.25  # every request carries out what is due before it is answered: nobody sees how often this looks
_KEEP_ALIVE = 120


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: both servers stop on one signal."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's start, and then a sign that it listens."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(
    *,
    port: int = 0,
    files_port: int = 0,
    seed: int = 0,
    members: int = 1000,
    faults: Sequence[str] = (),
    host: str = "127.0.0.1",
    ready: Callable[[str], object] = _announce,
    turned: Mapping[str, Any] | None = None,
) -> None:
    """Serve both vendors until SIGTERM or SIGINT. `ready` gets one line of JSON; port 0 means any free one."""
    with (
        contextlib.closing(_listen(host, port)) as main_socket,
        contextlib.closing(_listen(host, files_port)) as files,
    ):
        world = World(
            seed=seed, members=members, switches=turned, faults=faults, files_port=files.getsockname()[1]
        )
        asyncio.run(_run(world, host, main_socket, files, ready))


def _listen(host: str, port: int) -> socket.socket:
    # The protocol is named because asyncio turns Nagle's algorithm off only then; without it each answer
    # waits 40 ms for the client's delayed acknowledgement.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as wrong:
        found.close()
        said = f"The sandbox can't listen at {host}:{port} ({wrong.strerror})."
        code = _refused(
            "PORT_TAKEN", said, "End what listens there, or choose another --port; 0 takes a free one."
        )
        raise SystemExit(code) from wrong
    found.listen(512)
    return found


async def _run(
    world: World, host: str, main_socket: socket.socket, files: socket.socket, ready: Callable[[str], object]
) -> None:
    app = FaultMiddleware(vendor_routes.build(world), world, routes.build(world))
    store = FaultMiddleware(vendor_routes.build_files(world), world, None, files=True)
    servers = [_server(app), _server(store)]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    ticking = asyncio.create_task(_tick(world))
    serving = [
        asyncio.create_task(server.serve(sockets=[listening]))
        for server, listening in zip(servers, (main_socket, files), strict=True)
    ]
    for server in servers:
        await server.listening.wait()
    ready(orjson.dumps(_description(world, host, main_socket)).decode())
    await asyncio.gather(*serving)
    ticking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticking


def _server(app: FaultMiddleware) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            http="h11",
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=64 * 1024,
        )
    )


async def _tick(world: World) -> None:
    """Execute due jobs while nobody asks, as the vendor's own workers would."""
    while True:
        await asyncio.sleep(_TICK)
        world.settle()


def _description(world: World, host: str, main_socket: socket.socket) -> dict[str, Any]:
    shown = "127.0.0.1" if host in {"0.0.0.0", ""} else host  # noqa: S104  # compared, not bound
    base = f"http://{shown}:{main_socket.getsockname()[1]}"
    engage = world.tenant.extensions[0]
    return {
        "url": base,
        "files_url": f"http://{shown}:{world.files_port}",
        "door": f"{base}/_sandbox/",
        "amplitude": {
            "base_url": base,
            "api_key": KEYS.api_key,
            "secret_key": KEYS.secret_key,
            "cohorts": [c.id for c in world.project.cohorts.values()],
        },
        "marketing_cloud": {
            "auth_url": f"{base}/v2/token",
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "data_extension": engage.name,
            "data_extension_key": engage.key,
        },
    }


def main(argv: Sequence[str]) -> int:
    """The command line of `python -m sandbox` and of `cohort-sync sandbox`."""
    asked = _parser().parse_args(argv)
    turned = dict(pair.partition("=")[::2] for pair in asked.switch)
    try:
        checked = switches.Switches()
        checked.update_from_text(turned)
        for name in asked.fault:
            presets.named(name)
    except ValueError as wrong:
        return _refused("USAGE", f"{wrong}.", "Look at `cohort-sync sandbox --help`.")
    serve(
        port=asked.port,
        files_port=asked.files_port,
        seed=asked.seed,
        members=asked.members,
        faults=asked.fault,
        host=asked.host,
        turned={name: getattr(checked, name) for name in turned},
    )
    return 0


def _refused(code: str, what: str, remedy: str) -> int:
    """As the product's commands say an error; the exit code."""
    sys.stderr.write(f"error {code}: {what}\nwhat to do: {remedy}\n")
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A mistake on the command line."""
        what = f"{message[:1].upper()}{message[1:]}."
        raise SystemExit(_refused("USAGE", what, "Look at `cohort-sync sandbox --help`."))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cohort-sync sandbox",
        description="Both vendors on localhost, over real HTTP, with faults on request.",
        epilog=f"faults:\n{presets.describe()}\n\nswitches:\n{switches.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="both vendors and the door; 0 = any free one")
    parser.add_argument("--files-port", type=int, default=0, help="the file store; 0 = any free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same people and ids")
    parser.add_argument("--members", type=int, default=1000, help="members of each of the three cohorts")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME", help="a named fault, repeatable"
    )
    parser.add_argument(
        "--switch", action="append", default=[], metavar="NAME=VALUE", help="turn a switch, repeatable"
    )
    return parser
