"""Whatever the docs say to type is a command of today, with options of today, and links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest

from cli.main import COMMANDS, app, load
from sandbox.app import main as sandbox_main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
ANY_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(cohort-sync [^`]+)`")
DESCRIPTOR = re.compile(r"\s\d>(&\d|\s*\S+)")
ASSIGNMENT = re.compile(r"\w+=")
PLACEHOLDER = re.compile(r"[A-Z][A-Z-]*")
EVERYWHERE = {"--help", "-h"}


def commands_of(block: str) -> Iterator[list[str]]:
    """The words of each command line of cohort-sync in a piece of shell, without the program's name."""
    for line in block.replace("\\\n", " ").splitlines():
        for simple in simple_commands(line):
            words = list(dropwhile(ASSIGNMENT.match, simple))
            if words and Path(words[0]).name == "cohort-sync":
                yield words[1:]


def simple_commands(line: str) -> Iterator[list[str]]:
    """What stands between the operators of a shell line; redirections and comments are left out."""
    lexer = shlex.shlex(DESCRIPTOR.sub(" ", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    target = False
    for word in lexer:
        if word.strip("();<>|&"):
            if not target:
                words.append(word)
            target = False
        elif word.strip("<>&") == "" and word.strip("&"):
            target = True
        else:
            yield words
            words = []
    yield words


def mistake(words: list[str]) -> str | None:
    """What is wrong with a command line, or None."""
    if not words or words[0].startswith("-"):
        known = {name for option in _root().params for name in option.opts}
        return next((f"no option {word}" for word in words if word not in known | EVERYWHERE), None)
    name, *rest = words
    if PLACEHOLDER.fullmatch(name):
        return None
    if name not in COMMANDS:
        return f"no command {name}"
    if name == "sandbox":
        return _sandbox_mistake(rest)
    command = load(name)
    if children := getattr(command, "commands", {}):
        if not rest or rest[0] in EVERYWHERE:
            return None
        if rest[0] not in children:
            return f"no command {name} {rest[0]}"
        command, rest = children[rest[0]], rest[1:]
    return None if EVERYWHERE & set(rest) else _parsed(command, rest)


def _root() -> Any:
    import typer

    return typer.main.get_command(app)


@cache
def _sandbox_options() -> set[str]:
    with redirect_stdout(StringIO()) as shown, suppress(SystemExit):
        sandbox_main(["--help"])
    return set(re.findall(r"--?[a-z][a-z-]*", shown.getvalue()))


def _sandbox_mistake(words: list[str]) -> str | None:
    known = _sandbox_options()
    return next((f"no option {word}" for word in words if word.startswith("-") and word not in known), None)


def _parsed(command: Any, words: list[str]) -> str | None:
    context = command.context_class(command, info_name=command.name)
    try:
        given, left, _ = command.make_parser(context).parse_args(list(words))
    except Exception as wrong:  # noqa: BLE001 - typer brings its own kind, which has no public name
        return str(getattr(wrong, "message", wrong))
    if left:
        return f"unexpected {left}"
    for one in command.params:
        if one.param_type_name == "argument" and one.required and given.get(one.name) in (None, ()):
            return f"{one.name} is missing"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_of_a_page_exists(page: Path) -> None:
    blocks = [found.group(2) for found in BLOCK.finditer(page.read_text())]
    wrong = [
        f"cohort-sync {' '.join(words)}: {said}"
        for block in blocks
        for words in commands_of(block)
        if (said := mistake(words))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_named_in_a_sentence_exists(page: Path) -> None:
    """Of a command within a sentence the name and the options: what it works on may be left out."""
    wrong = []
    for text in INLINE.findall(ANY_BLOCK.sub("", page.read_text())):
        words = re.sub(r"[\[\]…]|‹[^›]*›|<[^>]*>", " ", text).split()[1:]  # noqa: RUF001 - typographic on purpose
        name = next((word for word in words if not word.startswith("-")), "")
        options = [word for word in words if re.match(r"--?[a-z]", word)]
        if said := _named_mistake(name, words, options):
            wrong.append(f"{text}: {said}")
    assert wrong == []


def _named_mistake(name: str, words: list[str], options: list[str]) -> str | None:
    if not name or PLACEHOLDER.fullmatch(name):
        return None
    if name not in COMMANDS:
        return f"no command {name}"
    if name == "sandbox":
        return _sandbox_mistake(options)
    command = load(name)
    if children := getattr(command, "commands", {}):
        if len(words) == 1:
            return None
        if words[1] not in children:
            return f"no command {name} {words[1]}"
        command = children[words[1]]
    known = {spelt for option in command.params for spelt in [*option.opts, *option.secondary_opts]}
    return next((f"no option {word}" for word in options if word not in known | EVERYWHERE), None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cohort-sync run buyers --wait --full", None),
        ("COHORT_SYNC_DATA_DIR=/tmp/x cohort-sync up > up.txt 2>&1 &  # the stack", None),
        ("cohort-sync forget - < key.txt", None),
        ("cohort-sync show RUN | grep -c rejected --nonsense", None),
        ("cohort-sync sandbox --port 8899 --members 50000 &", None),
        ("cohort-sync binding rm vips --yes", None),
        ("true && cohort-sync runn buyers", "no command runn"),
        ("cohort-sync binding ad buyers", "no command binding ad"),
        ("cohort-sync run buyers --fulll", "fulll"),
        ("cohort-sync run", "missing"),
        ("cohort-sync status everything", "unexpected"),
        ("cohort-sync runs --since", "since"),
        ("cohort-sync sandbox --prot 1", "no option --prot"),
        ("cohort-sync --versoin", "no option --versoin"),
    ],
)
def test_a_mistake_is_seen(line: str, said: str | None) -> None:
    [words] = list(commands_of(line))
    found = mistake(words)
    assert (found is None) if said is None else (said in (found or "")), found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", ANY_BLOCK.sub("", page.read_text())):
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if "://" in link or (target.exists() and (not heading or heading in headings_of(target))):
            continue
        lost.append(link)
    assert lost == []


def headings_of(page: Path) -> set[str]:
    """The anchors of a page, made as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", ANY_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def test_the_pages_have_commands() -> None:
    blocks = [found.group(2) for page in PAGES for found in BLOCK.finditer(page.read_text())]
    assert sum(len(list(commands_of(block))) for block in blocks) > 50
