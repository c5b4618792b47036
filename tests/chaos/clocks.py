"""Clocks that jump, of one process of a stack or of all, as the machine's does when somebody or NTP sets it."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from cli.stack import parent_death
from tests.chaos.kinds import act
from tests.chaos.storm import Storm

# A run that slept by a clock that was ahead wakes when the right one has caught up, so a calm takes as long.
MOST_SECONDS = 10.0
STEPS = (-MOST_SECONDS, -3.0, 3.0, MOST_SECONDS)


class Clocks:
    """A file for each process of a stack, by its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir())

    def set(self, name: str, seconds: float) -> None:
        """By so much its clock is wrong from now on."""
        with (self._folder / name).open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def command(self, *arguments: str) -> list[str]:
        """What starts a command of the product with its clock, in place of `parent_death.command`."""
        usual = _command(*arguments)
        if arguments[0] != "run":
            return usual
        name = arguments[arguments.index("--name") + 1] if "--name" in arguments else arguments[1]
        clock = self._folder / name
        if not clock.exists():
            clock.write_bytes(struct.pack("d", 0.0))
        parent = usual.index("cli.stack.parent_death") + 1
        return [sys.executable, "-P", str(Path(__file__).with_name("jumped.py")), str(clock), *usual[parent:]]


_command = parent_death.command


@contextmanager
def clocks(folder: Path) -> Iterator[Clocks]:
    """Whatever a stack starts meanwhile has a clock there."""
    folder.mkdir()
    made = Clocks(folder)
    with patch.object(parent_death, "command", made.command):
        yield made


def jump(storm: Storm, names: list[str], rng: random.Random) -> None:
    """Wrong for some seconds, or until the next calm."""
    step, seconds = rng.choice(STEPS) * rng.uniform(0.5, 1.0), rng.choice((rng.uniform(0.1, 3.0), 1e6))
    for name in names:
        storm.clocks.set(name, step)
        storm.later(seconds, lambda name=name: storm.clocks.set(name, 0.0))  # type: ignore[misc]


@act("clock of a process jumps")
def one(storm: Storm, rng: random.Random) -> None:
    jump(storm, [rng.choice(storm.clocks.names)], rng)


@act("clock of the machine jumps")
def everybody(storm: Storm, rng: random.Random) -> None:
    jump(storm, storm.clocks.names, rng)
