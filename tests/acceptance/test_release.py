"""`make dist`: what is in a release, and that a person who has only its files gets the whole product."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import cohort_sync
from tests.support import checked_in

ROOT = Path(__file__).parents[2]
UV = Path(sys.prefix) / "tools" / "bin" / "uv"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"cohort_sync-{PROJECT['version']}"
WHEEL, SOURCES, SBOM = f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz", f"{STEM}.cdx.json"

pytestmark = [
    pytest.mark.skipif(not UV.exists(), reason="the tools are not installed: make check"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes, with the environment of this test run."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    stamps = [f"--old-file={sys.prefix}/{name}" for name in (".installed", "tools/.installed")]
    command = ["make", "--silent", *stamps, f"VENV={sys.prefix}", f"DIST={folder}", "dist"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=200)
    return folder


def pins(text: str) -> set[str]:
    return set(re.findall(r"^(\S+==[^\s\\]+)", text, flags=re.MULTILINE))


def test_a_release_has_its_checksums_and_one_version(dist: Path) -> None:
    names = {path.name for path in dist.iterdir()}
    assert names == {WHEEL, SOURCES, SBOM, "constraints.txt", "SHA256SUMS"}
    listed = dict(line.split()[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert listed == {
        name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}
    }
    assert f"\n## [{PROJECT['version']}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_flowers_pages_are_in_the_wheel_and_in_the_sources(dist: Path) -> None:
    pages = {
        f"cli/flower/{path.parent.name}/{path.name}"
        for path in (ROOT / "cli" / "flower").glob("[!_]*/*.[hc]*")
    }
    assert {"cli/flower/templates/cohorts.html", "cli/flower/static/cohorts.css"} <= pages
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        assert pages <= set(wheel.namelist())
    with tarfile.open(dist / SOURCES) as sources:
        assert pages <= {name.partition("/")[2] for name in sources.getnames()}


def test_the_sbom_and_the_constraints_are_the_lock(dist: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    document = json.loads((dist / SBOM).read_text())
    assert document["bomFormat"] == "CycloneDX"
    about = document["metadata"]["component"]
    assert (about["name"], about["version"]) == ("cohort-sync", PROJECT["version"])
    components = document["components"]
    assert {one["purl"] for one in components} == {f"pkg:pypi/{pin.replace('==', '@')}" for pin in pins(lock)}
    digests = {
        digest["content"]
        for one in components
        for reference in one["externalReferences"]
        for digest in reference["hashes"]
    }
    assert digests == set(re.findall(r"--hash=sha256:(\w+)", lock))
    constraints = (dist / "constraints.txt").read_text()
    assert pins(constraints) == pins(lock)
    assert constraints.count(";") == len(re.findall(r"^\S+==.* ; ", lock, flags=re.MULTILINE))


def test_the_wheel_has_every_package_typed_and_the_licence(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as wheel:
        names = set(wheel.namelist())
        licence = wheel.read(f"{STEM}.dist-info/licenses/LICENSE")
    tops = {name.partition("/")[0] for name in names} - {f"{STEM}.dist-info"}
    assert tops == {*cohort_sync.PACKAGES, "cohort_sync.py"}
    assert {f"{package}/py.typed" for package in cohort_sync.PACKAGES} <= names
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert b"Version 2.0, January 2004" in licence


def test_the_sources_are_the_checkout(dist: Path) -> None:
    listed = checked_in()
    if not listed:
        pytest.skip("this is no checkout")
    with tarfile.open(dist / SOURCES) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in listed if (ROOT / name).exists()} - names <= {".gitignore"}


# --- who has only the release -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """cohort-sync as the README's first command installs it, in an empty home."""

    home: Path

    @property
    def python(self) -> Path:
        return self.home / "tools" / "cohort-sync" / "bin" / "python"

    def run(
        self, *command: str | Path, seconds: float = 60, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        (self.home / "elsewhere").mkdir(exist_ok=True)
        return subprocess.run(
            command,
            cwd=self.home / "elsewhere",
            env=outside(self.home) | variables,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def outside(home: Path) -> dict[str, str]:
    """The environment of somebody who has nothing of this project; certificates and caches are the machine's."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("SSL_", "UV_"))}
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return kept | {
        "PATH": f"{home / 'bin'}:{UV.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),
        "UV_CACHE_DIR": cache,
        "UV_PYTHON": sys.executable,
        "UV_TOOL_DIR": str(home / "tools"),
        "UV_TOOL_BIN_DIR": str(home / "bin"),
    }


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("home")
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("uv tool")]
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=dist,
        env=outside(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if re.search(r"error sending request|dns error|Could not connect", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return Installed(home)


def test_the_demo_runs_from_another_folder(installed: Installed) -> None:
    frozen = installed.run(UV, "pip", "freeze", "--python", installed.python).stdout
    assert pins(frozen) <= pins((ROOT / "requirements.lock").read_text())
    assert "cohort-sync @ file:" in frozen
    assert installed.run("cohort-sync", "--version").stdout == f"cohort-sync {PROJECT['version']}\n"
    demo = installed.run("cohort-sync", "demo", "--members", "2000", seconds=120)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "The data extension equals the cohorts, member by member." in demo.stdout
    assert list((installed.home / "elsewhere").iterdir()) == []


def test_another_package_in_the_place_of_ours_is_refused(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "__init__.py").touch()
    first = installed.run("cohort-sync", "status", "--json", PYTHONPATH=str(tmp_path))
    error = json.loads(first.stdout)["error"]
    assert (first.returncode, first.stderr, error["code"]) == (1, "", "PACKAGE_SHADOWED")
    assert "'config'" in error["message"]
    assert str(tmp_path / "config" / "__init__.py") in error["message"]
    assert installed.run("cohort-sync", "--version").returncode == 0

    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "somebody-elses"\nversion = "1"\n[tool.setuptools]\npackages = ["config"]\n'
    )
    over = [
        UV,
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
        "--python",
        installed.python,
    ]
    subprocess.run(
        [UV, "build", "-q", "--wheel", "--offline", "--no-build-isolation", "--python", UV.parent / "python"],
        cwd=tmp_path,
        check=True,
    )
    [other] = (tmp_path / "dist").glob("*.whl")
    assert installed.run(*over, other).returncode == 0
    second = installed.run("cohort-sync", "demo")
    assert second.returncode == 1
    assert second.stdout == ""
    assert "error PACKAGE_SHADOWED: " in second.stderr
    assert "'config'" in second.stderr
    assert "by the distribution somebody-elses" in second.stderr
    assert "Traceback" not in second.stderr
