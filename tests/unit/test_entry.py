"""The command's beginning: every package that it consists of is its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cohort_sync

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages in which ours lie, as far as the entry looks at them, and say that they ran."""
    site = tmp_path / "site"
    for package in cohort_sync.PACKAGES:
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(f"# {package}, ours\n")
    (site / "cli" / "main.py").write_text("def main() -> int:\n    print('begun')\n    return 5\n")
    (site / "cohort_sync.py").write_text(Path(cohort_sync.__file__).read_text())
    record = site / "cohort_sync-1.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text(
        "".join(
            f"{path.relative_to(site)},{cohort_sync._digest(path)},{path.stat().st_size}\n"
            for path in sorted(site.rglob("*.py"))
        )
        + "cohort_sync-1.dist-info/RECORD,,\n"
    )
    return site


def begin(*places: Path) -> subprocess.CompletedProcess[str]:
    """The entry, where Python looks for packages in these places, in this order."""
    program = f"import sys; sys.path[:0] = {list(map(str, places))}; import cohort_sync; sys.exit(cohort_sync.main())"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=30, check=False
    )


def refused(answer: subprocess.CompletedProcess[str], package: str, place: str) -> bool:
    return (
        (answer.returncode, answer.stdout) == (1, "")
        and answer.stderr.startswith("error PACKAGE_SHADOWED: ")
        and f"'{package}' is not cohort-sync's own: {place}" in answer.stderr
    )


def test_it_begins_where_all_are_its_own(site: Path, tmp_path: Path) -> None:
    assert (begin(site).returncode, begin(site).stdout) == (5, "begun\n")
    linked = tmp_path / "linked"
    linked.symlink_to(site)
    assert begin(linked).returncode == 5


@pytest.mark.parametrize("package", cohort_sync.PACKAGES)
def test_one_that_is_found_before_ours(package: str, site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / package / "__init__.py"
    other.parent.mkdir(parents=True)
    other.touch()
    assert refused(begin(other.parents[1], site), package, f"Python finds {other} first")
    other.unlink()
    other.parent.rmdir()
    module = tmp_path / "other" / f"{package}.py"
    module.touch()
    assert refused(begin(module.parent, site), package, f"Python finds {module} first")


@pytest.mark.parametrize("package", cohort_sync.PACKAGES)
def test_one_that_was_installed_over_ours(package: str, site: Path) -> None:
    ours = site / package / "__init__.py"
    ours.write_text("")
    assert refused(begin(site), package, f"{ours} was replaced")
    ours.unlink()  # the other was uninstalled, and took ours with it
    assert refused(begin(site), package, f"{ours} is missing")


def test_the_list_is_what_the_wheel_has() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {f"{package}*" for package in cohort_sync.PACKAGES} == set(
        tool["setuptools"]["packages"]["find"]["include"]
    )
    for package in cohort_sync.PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert (ROOT / package / "__init__.py").stat().st_size > 0  # an empty one is equal to any other's
