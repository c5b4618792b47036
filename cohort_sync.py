"""Where `cohort-sync` begins: the one top-level name here that no other distribution would take.

The packages beside it have common names (`config`, `models`, …). In an environment that is shared with others,
another distribution's package of that name can be found first, or can have been installed over ours. Then some
command would fail somewhere with an ImportError, or run somebody else's code. So this is looked at once, before
anything of ours is imported: every package lies beside this file, as it was installed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("cli", "config", "models", "monitor", "receiver", "sandbox", "scheduler", "worker")
CODE = "PACKAGE_SHADOWED"
# Of the catalogue in `models`, which may be the very package that is not ours.
TEXTS = (
    "The package '{package}' is not cohort-sync's own: {place}.",
    "Install cohort-sync into an environment of its own: `uv tool install`, `pipx install`, or a new virtual "
    "environment.",
)


def shadowed() -> tuple[str, str] | None:
    """The first of our packages that is not ours, and what is the matter with it; None if all are ours."""
    installed = dict(_installed())
    for package in PACKAGES:
        ours = HERE / package / "__init__.py"
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return package, f"{ours} is missing"
        if Path(spec.origin).resolve() != ours:
            return package, f"Python finds {spec.origin} first"
        if _digest(ours) != installed.get(ours, _digest(ours)):
            return package, f"{ours} was replaced{_by(package)}"
    return None


def _installed() -> Iterator[tuple[Path, str]]:
    """The files of the wheel, each with its digest as the installer wrote it down; nothing in a checkout."""
    for record in HERE.glob("cohort_sync-*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as lines:
            for name, digest, _ in csv.reader(lines):
                if digest:
                    yield HERE / name, digest


def _digest(path: Path) -> str:
    """As an installer writes it into RECORD (PEP 376): urlsafe base64 without padding."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256={digest.decode().rstrip('=')}"


def _by(package: str) -> str:
    from importlib.metadata import packages_distributions

    others: set[str | None] = set()
    with suppress(Exception):  # another distribution's metadata may be broken; its name is a help only
        others.update(packages_distributions().get(package, ()))
    named = sorted(name for name in others if name and name != "cohort-sync")
    return f" by the distribution {' or '.join(named)}" if named else ""


def main() -> int:
    """The command line, if everything that it consists of is here."""
    if foreign := shadowed():
        package, place = foreign
        message, remedy = TEXTS[0].format(package=package, place=place), TEXTS[1]
        if "--json" in sys.argv:
            print(json.dumps({"error": {"code": CODE, "message": message, "remedy": remedy}}, indent=2))
        else:
            print(f"error {CODE}: {message}\nwhat to do: {remedy}", file=sys.stderr)
        return 1
    if sys.argv[1:2] == ["health"] and not {"-h", "--help"} & set(sys.argv):
        from cli.health import main as health  # a probe has no time for the rest

        return health(sys.argv[2:])
    from cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
