"""`demo`, `worker`, `scheduler`, `flower`, `monitor`, `sandbox`: what keeps running until it is stopped.

Each is a process of its own in production; what it does stands in `cli/demo/demo.py`, `cli/flower/server.py`,
`worker/`, `scheduler/` and `monitor/`. The sandbox is started from here and known nowhere else.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cli import context
from cli.commands.operations import port_options
from cli.exit_codes import Code
from models.errors import SyncError, WrongSecretKeyError

app = typer.Typer(add_completion=False)

DEMO_MEMBERS = 50_000


@app.command()
def demo(
    members: Annotated[int, typer.Option(min=1, help="Members of the largest sample cohort.")] = DEMO_MEMBERS,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the stack running afterwards.")] = False,
) -> None:
    """See it work: the stack against sandbox vendors, two syncs, and a comparison.

    Exits 0 only if the data extension equals the cohorts at the end.

    Example: cohort-sync demo --keep
    """
    from cli.demo import demo as demonstration

    raise typer.Exit(demonstration.run(context.settings(), members=members, keep=keep))


@app.command()
def worker(
    name: Annotated[str, typer.Option(help="The worker's name, unique on this host.")] = "worker",
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Parallel tasks (default: COHORT_SYNC_WORKER_CONCURRENCY)."),
    ] = None,
) -> None:
    """A worker: takes runs from the queue. Any number of them, on any number of hosts.

    Example: cohort-sync worker --name worker-2
    """
    settings = context.settings()
    with context.database(proven=True):
        pass  # a wrong database is said here and not by the first task
    context.require_queue()
    import warnings

    from celery.exceptions import SecurityWarning
    from celery.utils.log import mlevel
    from celery.utils.nodenames import default_nodename, host_format

    from config.queue_names import QUEUES
    from worker.app import app as celery
    from worker.departure import Departure
    from worker.liveness import PulseStep

    celery.steps["consumer"].add(PulseStep)
    departure = Departure(settings)
    # Eight lines about pickled messages from anybody: ours are JSON, and nothing else is accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    # Celery's own command line would load a shell with completion: 7 MB of every worker.
    process = celery.Worker(
        hostname=host_format(default_nodename(f"{name}@%h")),
        pool_cls="prefork",
        concurrency=concurrency or settings.worker_concurrency,
        queues=QUEUES,
        loglevel=mlevel(settings.log_level),
        quiet=True,  # no banner on stdout: what it says stands in the log
        # Workers meet in the database: they need no news of each other. Heartbeats stay, for Flower.
        without_gossip=True,
        without_mingle=True,
    )
    process.start()
    departure.gone()
    if process.exitcode:  # whoever supervises a worker that gave up must see that it did
        raise typer.Exit(Code.FAILED)


@app.command()
def scheduler() -> None:
    """A scheduler: makes runs when they are due. Any number of them; there is no leader.

    Example: cohort-sync scheduler
    """
    settings = context.settings()
    with context.database(proven=True):
        pass
    context.require_queue()
    from scheduler.main import main

    raise typer.Exit(main(settings))


@app.command()
def flower(port: port_options.Flower = None) -> None:
    """Flower: watch the queue and the workers in a browser.

    Example: cohort-sync flower --port 8080
    """
    from cli.flower import server as page

    settings = port_options.applied(context.settings(), flower=port)
    _prove_if_there()
    raise typer.Exit(page.run(settings))


@app.command()
def monitor(port: port_options.Monitor = None) -> None:
    """A monitor: looks every few seconds whether the work gets done, and serves metrics for Prometheus.

    Example: cohort-sync monitor --port 9464
    """
    settings = port_options.applied(context.settings(), monitor=port)
    _prove_if_there()  # SQLite is made if need be
    from cli.commands.operations import monitor as watching

    raise typer.Exit(watching.run(settings))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def sandbox(ctx: typer.Context) -> None:
    """Both vendors on localhost, for trying things out; `--help` lists its own options.

    Example: cohort-sync sandbox --port 8090 --members 10000
    """
    from sandbox.app import main

    raise typer.Exit(main(ctx.args))


def _prove_if_there() -> None:
    """Refuse a wrong key; a database that is away or old keeps nobody from watching."""
    try:
        with context.database(proven=True):
            pass
    except WrongSecretKeyError:
        raise
    except SyncError:
        pass
