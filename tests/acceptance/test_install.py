"""Installing from a lock resolves nothing, whatever was released since; and no file installs in another way."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import checked_in
from tests.wheels import fetched

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "deploy" / "install-lock.sh"
NEWEST = ("26.3", "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13")
# The oldest pip that each Python came with (Debian 12's for 3.11): older ones can't run on newer Pythons.
OLDEST = {
    11: ("23.0", "b5f88adff801f5ef052bcdef3daa31b55eb67b0fccd6d0106c206fa248e0463c"),
    12: ("23.2.1", "7ccf472345f20d35bdc9d1841ff5f313260c2c33fe417f48c30ac46cccabf5be"),
    13: ("24.2", "2cd581cf58ab7fcfca4ce8efa6dcacd0de5bf8d0a3eb9ec927e07405f4d9e2a2"),
    14: ("25.2", "6d67a2b4e7f14d8b31b8b52648866fa717f45a1eb70e83002f4331d07e953717"),
}.get(sys.version_info.minor, NEWEST)
PIPS = [pytest.param(OLDEST, id="oldest"), pytest.param(NEWEST, id="newest")]

Pip = tuple[str, str]


@dataclass(frozen=True)
class Index:
    """A package index in a folder, as pip reads it (PEP 503)."""

    folder: Path

    def release(self, name: str, version: str, metadata: str = "") -> str:
        """Publish a package of one module; its line of a lock."""
        page = self.folder / name
        page.mkdir(parents=True, exist_ok=True)
        path = page / f"{name}-{version}-py3-none-any.whl"
        information = f"{name}-{version}.dist-info"
        files = {
            f"{name}.py": f"version = {version!r}\n",
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{file},{_digest(text)},{len(text)}\n" for file, text in files.items())
        with zipfile.ZipFile(path, "w") as wheel:
            for file, text in files.items():
                wheel.writestr(file, text)
            wheel.writestr(f"{information}/RECORD", f"{record}{information}/RECORD,,\n")
        links = "".join(f'<a href="{one.name}">{one.name}</a>\n' for one in sorted(page.glob("*.whl")))
        (page / "index.html").write_text(f"<!DOCTYPE html>\n<html><body>{links}</body></html>\n")
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={digest.decode().rstrip('=')}"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "simple")


def locked(index: Index) -> str:
    """A lock in which one package asks for another with an extra."""
    return "".join(
        [
            index.release("asked", "1.0", 'Provides-Extra: more\nRequires-Dist: extra; extra == "more"\n'),
            index.release("asking", "1.0", "Requires-Dist: asked[more]>=1\n"),
            index.release("extra", "1.0"),
        ]
    )


@pytest.fixture(scope="module")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pip], Path]:
    """That pip's own wheel, from the package index; the test is skipped where none can be reached."""

    def fetch(pip: Pip) -> Path:
        return fetched("pip", *pip, tmp_path_factory.mktemp("pip"))

    return fetch


class Environment:
    """A virtual environment with that very pip, which knows no index but the test's."""

    def __init__(self, folder: Path, wheel: Path, index: Index) -> None:
        self.folder = folder
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.folder.as_uri(),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.run(self.python, wheel / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.variables, capture_output=True, text=True, timeout=60, check=False
        )

    def installed(self) -> list[str]:
        return self.run(self.python, "-m", "pip", "freeze").stdout.split()


@pytest.fixture
def environment(
    tmp_path: Path, index: Index, pip_wheel: Callable[[Pip], Path]
) -> Callable[[Pip], Environment]:
    return lambda pip: Environment(tmp_path / "environment", pip_wheel(pip), index)


@pytest.mark.parametrize("pip", PIPS)
def test_newer_releases_change_nothing(
    pip: Pip, index: Index, environment: Callable[[Pip], Environment], tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(locked(index))
    index.release("asked", "2.0", "Requires-Dist: newcomer\nProvides-Extra: more\n")
    index.release("extra", "2.0")
    index.release("asking", "2.0", "Requires-Dist: asked[more]>=2\n")
    here = environment(pip)
    assert here.run(here.python, "-m", "pip", "--version").stdout.startswith(f"pip {pip[0]} ")
    answer = here.run(INSTALL, here.folder, lock)
    assert answer.returncode == 0, answer.stderr
    assert here.installed() == ["asked==1.0", "asking==1.0", "extra==1.0"]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the pip of Python 3.13 resolves this lock as well")
def test_the_oldest_pip_would_fail_if_it_resolved(
    index: Index, environment: Callable[[Pip], Environment], tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(locked(index))
    index.release("asked", "2.0", "Provides-Extra: more\n")
    here = environment(OLDEST)
    answer = here.run(here.python, "-m", "pip", "install", "--require-hashes", "-r", lock)
    assert answer.returncode != 0
    assert "must have their versions pinned with ==" in answer.stderr
    assert here.installed() == []


def test_a_lock_that_lacks_something_is_found(
    index: Index, environment: Callable[[Pip], Environment], tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("".join(line for line in locked(index).splitlines(keepends=True) if "asked" not in line))
    here = environment(OLDEST)
    answer = here.run(INSTALL, here.folder, lock)
    assert answer.returncode != 0
    assert "asking 1.0 requires asked" in answer.stderr


def test_a_file_with_another_hash_is_refused(
    index: Index, environment: Callable[[Pip], Environment], tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", locked(index), count=1))
    here = environment(OLDEST)
    assert here.run(INSTALL, here.folder, lock).returncode != 0
    assert here.installed() == []


# --- no file installs in another way ------------------------------------------------------------------------


INSTALLER = re.compile(
    r"\b(?:(?:uv )?pip3?|uv|pipx)\b(?: +(?!`)[^\s;&|`]+)*? +(?:install|sync|wheel|download|add|run)\b[^;&|`]*"
)
LOCKED = {"--require-hashes", "--no-deps", "--only-binary"}
HARMLESS = (
    {"--no-deps", "--no-index"},  # a file that is here already
    {"--no-deps", "--no-build-isolation"},  # this project, by what is installed already
)


def files() -> list[Path]:
    """Every text that the project has, but for this one: of a checkout, or of an unpacked source distribution."""
    found = [ROOT / name for name in checked_in()] or [
        path
        for path in ROOT.rglob("*")
        if not {".venv", "build", "dist"} & set(path.relative_to(ROOT).parts) and "_cache/" not in str(path)
    ]
    return [path for path in found if path.is_file() and path != Path(__file__)]


def installs(text: str) -> list[str]:
    """The commands that install something, however they are spelled: one per line, words parted by a space."""
    lines = re.sub(r"\\\n|(?<=,)\n", " ", text)
    plain = re.sub(r"[\"'\[\](),]", " ", lines)
    return [" ".join(found.split()) for line in plain.splitlines() for found in INSTALLER.findall(line)]


def wrong(command: str) -> bool:
    """Whether it would resolve, or is not the one command that installs from a lock."""
    if command.startswith(("uv tool install", "pipx install")):
        named_only = command in {"uv tool install", "pipx install"}
        return not named_only and not re.search(r"--constraints? \S*constraints\.txt", command)
    words = set(command.split())
    from_lock = re.search(r"\.lock|(^| )-r|--requirement", command) is not None
    return from_lock or not any(flags <= words for flags in HARMLESS)


@pytest.mark.parametrize(
    "text",
    [
        "pip install -r requirements.lock",
        "RUN /opt/x/bin/pip install --require-hashes --no-deps \\\n    -r requirements.lock",
        '[sys.executable, "-m", "pip", "install",\n "-r", str(lock)]',
        "$(PY) -m pip install $(FROM_LOCK) -r requirements-dev.lock",
        "uv pip sync requirements.lock",
        "uv pip install -rrequirements.lock",
        "pip install --no-deps --no-index -r requirements.lock",
        "pip install .",
        "pip install --no-deps .",
        "pip wheel .",
        "$(PY) -m pip install --quiet uv",
        "uv run pytest",
        "pipx install cohort_sync-1.whl",
        "uv tool install cohort_sync-1.whl",
    ],
)
def test_the_scan_sees_other_ways(text: str) -> None:
    assert [wrong(command) for command in installs(text)] == [True]


def test_no_file_installs_in_another_way() -> None:
    commands: dict[Path, Sequence[str]] = {}
    for path in files():
        try:
            commands[path.relative_to(ROOT)] = installs(path.read_text())
        except UnicodeDecodeError:
            continue
    for ours in (INSTALL, ROOT / "tests" / "wheels.py"):
        [command] = commands.pop(ours.relative_to(ROOT))
        assert set(command.split()) >= LOCKED
    assert {
        (str(path), command) for path, found in commands.items() for command in found if wrong(command)
    } == set()
    assert {"Makefile", "README.md", "deploy/Dockerfile", "deploy/README.md"} <= {
        str(path) for path, found in commands.items() if found
    }


def test_every_lock_is_complete_and_says_what_was_tested() -> None:
    """What runs in production is what the tests ran with; nothing has no hash, nothing names an index."""
    locks = {path.relative_to(ROOT): path.read_text() for path in files() if path.suffix == ".lock"}
    assert {str(path) for path in locks} == {
        "requirements.lock",
        "requirements-dev.lock",
        "deploy/build.lock",
        "deploy/tools.lock",
        "tests/benchmarks/rivals.lock",
    }
    pins = {}
    for path, text in locks.items():
        entries = re.findall(r"^(\S+==[^\\]+?) \\\n((?:    --hash=.+\n)+)", text, flags=re.MULTILINE)
        assert len(entries) == len(re.findall(r"^[^\s#]", text, flags=re.MULTILINE)) > 0, path
        assert "://" not in text, path
        pins[str(path)] = {pin for pin, _ in entries}
    # On which platforms a package is asked for depends on who asks; its version does not.
    versions = {path: {pin.partition(" ;")[0] for pin in found} for path, found in pins.items()}
    assert versions["requirements.lock"] <= versions["requirements-dev.lock"]
    assert versions["deploy/build.lock"] <= versions["requirements-dev.lock"]
