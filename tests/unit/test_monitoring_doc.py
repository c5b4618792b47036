"""docs/monitoring.md names what the monitor serves. Run as a program, it writes the table anew."""

from __future__ import annotations

import re
from pathlib import Path

from models.observability.metric_queries import SHOWN_BINDINGS
from monitor.definitions import FAMILIES
from monitor.metrics import PROBLEMS

DOC = Path(__file__).parents[2] / "docs" / "monitoring.md"
BEGIN, END = "<!-- metrics: python tests/unit/test_monitoring_doc.py -->", "<!-- /metrics -->"


def table() -> str:
    """Every metric with its type, its labels and its sentence."""
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{one}`' for one in family.labels)} | {family.meaning} |"
        for family in FAMILIES
    ]
    return "\n".join(["| metric | type | labels | is |", "|---|---|---|---|", *rows])


def test_the_table_is_what_the_collector_serves() -> None:
    assert DOC.read_text().split(BEGIN)[1].split(END)[0].strip() == table()


def test_what_else_is_said_of_them_holds() -> None:
    text = DOC.read_text()
    assert f"{SHOWN_BINDINGS:,} bindings" in text
    served = {family.name for family in FAMILIES}
    assert set(re.findall(r"`(cohort_sync_[a-z_]+)`", text)) <= served
    assert set(re.findall(r"code=\"([A-Z_]+)\"", text)) <= set(PROBLEMS)


def main() -> None:
    """Write the table into the page."""
    head, rest = DOC.read_text().split(BEGIN)
    DOC.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
