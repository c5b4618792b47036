"""docs/cli.md is made from the commands themselves. Run as a program, it writes the page anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.main import COMMANDS, load

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAD = """# Command reference

Made from the commands by `python tests/unit/test_cli_reference.py`; a test keeps it so. `cohort-sync COMMAND --help`
shows the same.

Names are the ones you gave; ids work too. Settings come from the environment, prefix `COHORT_SYNC_`, or an `.env` file.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | bad input; nothing was changed |
| 3 | finished, with rejected rows |
| 4 | held for approval |
| 5 | a check failed |
| 130 | interrupted |
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    panel = ""
    for name, entry in COMMANDS.items():
        if entry.panel != panel:
            panel = entry.panel
            parts.append(f"\n## {panel}\n")
        parts += section(f"cohort-sync {name}", load(name))
    return "\n".join(parts).rstrip() + "\n"


def section(path: str, command: Any) -> Iterator[str]:
    """One command, or each command of a group."""
    children = getattr(command, "commands", {})
    if children:
        for name, child in children.items():
            if not child.hidden:
                yield from section(f"{path} {name}", child)
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = [usage(one) for one in arguments]
    yield f"### `{' '.join([path, *words])}`\n"
    yield from (f"{paragraph}\n" for paragraph in paragraphs(command.help or ""))
    if arguments or options:
        yield "| | |\n|---|---|"
        yield from (f"| `{usage(one)}` | {cell(one.help)} |" for one in arguments)
        yield from (f"| {names(one)} | {cell(one.help)}{default(one)} |" for one in options)
        yield ""


def paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        flat = " ".join(paragraph.split())
        before, example, command = flat.partition("Example: ")
        if example:
            yield f"{before}Example: `{command}`"
        else:
            yield flat


def usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]").replace("_", "-")
    return name if argument.required else f"[{name}]"


def names(option: Any) -> str:
    spelt = ", ".join(f"`{one}`" for one in option.opts + option.secondary_opts)
    return spelt if option.is_flag else f"{spelt} `{option.metavar}`"


def default(option: Any) -> str:
    found = option.default
    if option.is_flag or option.required or callable(found) or found in (None, "", (), []):
        return ""
    shown = getattr(found, "value", found)
    return "" if not isinstance(shown, str | int | float) else f" Default: `{shown}`."


def cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", (text or "").replace("|", "\\|")).strip()


def test_the_page_is_what_the_commands_are() -> None:
    assert PAGE.read_text() == page()


def test_values_have_one_style_and_flags_have_none() -> None:
    text = page()
    assert set(re.findall(r"`--[a-z-]+` `([^`]+)`", text)) >= {"TEXT", "NUMBER", "FILE", "TIME", "STATE"}
    assert re.findall(r"` `([^`A-Z]+)`", text) == []
    assert re.findall(r"<[a-z]+>", text) == []
    assert "install-completion" not in text


def test_every_command_has_a_sentence_and_an_example_or_is_a_process() -> None:
    text = page()
    for name, entry in COMMANDS.items():
        assert f"cohort-sync {name}" in text
        assert entry.help.endswith(".")


if __name__ == "__main__":
    PAGE.write_text(page())
