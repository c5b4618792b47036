"""The locked packages against the known vulnerabilities: `python -m tests.audit LOCK`.

It ends with 1 only for a vulnerability that was found. Where no advisory source answers, a line says so and nothing
fails: a checkout must work without the network. Only an answer for a package counts as looked at; pip-audit itself
calls a package clean that its source does not know. What was found out is kept for the day in the environment, so
that the check before each commit asks once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

# pip-audit's own words: the index's advisories, then OSV's.
SOURCES = (("--vulnerability-service", "pypi"), ("--vulnerability-service", "osv"))
PROBE_SECONDS, AUDIT_SECONDS = 20, 120
DESCRIPTION_LENGTH = 100


def main(
    argv: Sequence[str],
    *,
    today: date,
    remembered: Path,
    sources: Sequence[Sequence[str]] = SOURCES,
    seconds: tuple[float, float] = (PROBE_SECONDS, AUDIT_SECONDS),
    python: str = sys.executable,
) -> int:
    """Audit with the pip-audit of `python`, or repeat what was found out today about this very lock; the exit code."""
    parser = argparse.ArgumentParser(prog="tests.audit")
    parser.add_argument("lock", type=Path)
    parser.add_argument(
        "--accept", action="append", default=[], metavar="ID", help="a vulnerability that is known"
    )
    given = parser.parse_args(argv)
    accepted = [word for one in given.accept for word in ("--ignore-vuln", one)]
    key = hashlib.sha256(repr((today, given.lock.read_bytes(), given.accept)).encode()).hexdigest()
    if remembered.is_file() and remembered.read_text().partition("\n")[0] == key:
        print(remembered.read_text().partition("\n")[2])
        return 0
    answer = _first_answer(given.lock, python, [[*source, *accepted] for source in sources], seconds)
    if answer is None:
        line = "audit: no advisory source can be reached; the lock was not checked, and will be tomorrow"
    else:
        found = [(one, flaw) for one in answer for flaw in one.get("vulns", ())]
        for one, flaw in found:
            print(_line(one, flaw))
        if found:
            return 1
        skipped = sum("skip_reason" in one for one in answer)
        line = f"audit: no known vulnerability in {len(answer) - skipped} locked packages"
        line += f"; nothing is known of {skipped}" if skipped else ""
    remembered.write_text(f"{key}\n{line}")
    print(line)
    return 0


def _first_answer(
    lock: Path, python: str, sources: Sequence[list[str]], seconds: tuple[float, float]
) -> list[dict[str, Any]] | None:
    """What the first source that can be reached says of each package; None if none can."""
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "first.lock"
        first.write_text(_first_requirement(lock.read_text()))
        for source in sources:
            probe = _asked(first, python, source, seconds[0])
            known = probe and all("vulns" in one for one in probe)
            if known and (answer := _asked(lock, python, source, seconds[1])):
                return answer
    return None


def _first_requirement(text: str) -> str:
    """The first that holds on every platform, with its hashes."""
    lines = text.splitlines()
    begin = next(number for number, line in enumerate(lines) if "==" in line and ";" not in line)
    end = next(number for number in range(begin, len(lines)) if not lines[number].endswith("\\"))
    return "\n".join(lines[begin : end + 1]) + "\n"


def _asked(lock: Path, python: str, source: list[str], seconds: float) -> list[dict[str, Any]] | None:
    """pip-audit's answer for each package, or None: its exit code is 1 for a flaw and for a failure alike."""
    command = [python, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(lock)]
    try:
        ran = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "5", *source],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        answer: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None
    return answer


def _line(package: dict[str, Any], flaw: dict[str, Any]) -> str:
    mended = ", ".join(flaw.get("fix_versions", ())) or "no version yet"
    said = " ".join(str(flaw.get("description", "")).split())[:DESCRIPTION_LENGTH]
    return f"audit: {package['name']} {package['version']} has {flaw['id']} (mended in {mended}): {said}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], today=datetime.now(UTC).date(), remembered=Path(sys.prefix) / ".audited"))
