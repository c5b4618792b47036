"""Progress on a terminal: a line with what is done, and a bar with rows, rate and time left where the amount is known.

On stderr, so that stdout holds nothing but the result. It goes when it is done: the result says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli import output

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID
    from rich.text import Text

BAR_CELLS, NARROW, NARROW_CELLS = 20, 80, 8


class Bar:
    """One line that changes."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._total = (0, "rows")

    def tell(self, doing: str, done: int = 0, total: int = 0, unit: str = "rows") -> None:
        """What is being done, and how much of how much; no bar without a `total`."""
        if (total, unit) != self._total:  # another amount: its rate is not that of the one before
            self._progress.reset(self._task, description=output.clean(doing), completed=done)
            self._progress.tasks[0].total = total or None  # `reset` takes None for "as it is"
            self._total = (total, unit)
        self._progress.update(self._task, description=output.clean(doing), completed=done, unit=unit)


@contextmanager
def shown(doing: str) -> Iterator[Bar]:
    """The line, from here on to the end of the block."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn
    from rich.table import Column
    from rich.text import Text

    class Amounts(ProgressColumn):
        """Rows, rate and time left."""

        def render(self, task: Task) -> Text:
            unit = task.fields.get("unit", "rows")
            return Text(amounts(int(task.completed), task.total, task.speed, task.time_remaining, unit))

    class Drawn(BarColumn):
        """A bar where there is an amount."""

        def render(self, task: Task) -> Text | object:  # type: ignore[override]
            return super().render(task) if task.total else Text("")

    class Doing(ProgressColumn):
        """The words; the first to give way where a terminal is narrow."""

        def render(self, task: Task) -> Text:
            return Text(task.description)

    console = Console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        Doing(table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        Drawn(bar_width=BAR_CELLS if console.width >= NARROW else NARROW_CELLS),
        Amounts(table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
        expand=True,
    )
    with progress:
        yield Bar(progress, progress.add_task(output.clean(doing), total=None))


def amounts(
    done: int, total: float | None, speed: float | None, left: float | None, unit: str = "rows"
) -> str:
    """`1,200 of 5,000 rows, 400/s, 9 s left`; empty without an amount."""
    if not total:
        return ""
    words = [f"{done:,} of {int(total):,} {unit}"]
    if speed and done < total:
        words.append(f"{speed:,.0f}/s")
        if left is not None:
            words.append(f"{duration(left)} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """As `12 s` or `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
