"""The README and docs/errors.md say what the code says. Run as a program, it writes the error table anew."""

from __future__ import annotations

import re
from pathlib import Path

from models.error_catalogue import CATALOGUE
from models.errors import SyncError

README = Path(__file__).parents[2] / "README.md"
ERRORS = README.parent / "docs" / "errors.md"
BEGIN, END = "<!-- errors: python tests/unit/test_readme.py -->", "<!-- /errors -->"


def error_table() -> str:
    """The catalogue as a table, with <names> where a case has its own."""
    rows = [
        f"| `{code}` | {_cell(SyncError(code).message)} | {_cell(SyncError(code).remedy)} |"
        for code in CATALOGUE
    ]
    return "\n".join(["| code | what happened | what to do |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return re.sub(r"<([a-z_]+)>", r"‹\1›", text.replace("|", "\\|"))  # noqa: RUF001 - typographic on purpose


def test_error_table_is_the_catalogue() -> None:
    """Every code has its line, in the catalogue's own words."""
    text = ERRORS.read_text()
    assert text.split(BEGIN)[1].split(END)[0].strip() == error_table()


def test_settings_named_in_the_readme_exist() -> None:
    """A setting that is not one would be ignored in silence."""
    from config.settings import Settings

    named = set(re.findall(r"`COHORT_SYNC_([A-Z_]+)`", README.read_text()))
    assert named
    assert named <= {name.upper() for name in Settings.model_fields}


def test_commands_in_the_readme_exist() -> None:
    """What the README tells to type is there."""
    from cli.main import COMMANDS

    blocks = "".join(re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL))
    named = set(re.findall(r"^cohort-sync ([a-z]+)", blocks, re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = README.read_text()
    assert len(text.split()) < 2_000
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (README.parent / link.partition("#")[0]).exists()] == []


def test_the_file_in_the_docs_is_the_example() -> None:
    """The one that a test applies against the sandbox."""
    root = README.parent
    assert (root / "deploy" / "cohorts.example.yaml").read_text() in (root / "docs" / "apply.md").read_text()


def main() -> None:
    """Write the table into docs/errors.md."""
    head, rest = ERRORS.read_text().split(BEGIN)
    ERRORS.write_text(f"{head}{BEGIN}\n{error_table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
