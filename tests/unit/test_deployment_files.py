"""The files an administrator deploys: compose, Dockerfile, systemd unit, install script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_compose_follows_the_compose_specification() -> None:
    done = run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_is_clean() -> None:
    done = run(str(BIN / "hadolint"), "--config", "docker/.hadolint.yaml", "docker/Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("systemd-analyze")
def test_the_systemd_unit_is_clean(tmp_path: Path) -> None:
    unit = tmp_path / "falx.service"
    text = (ROOT / "docker" / "falx.service").read_text()
    unit.write_text(text.replace("/opt/falx/.venv/bin/falx", "/bin/true"))
    done = run("systemd-analyze", "verify", "--man=no", str(unit))
    assert "falx.service" not in done.stderr, done.stderr
    assert "UMask=0077" in text
    assert "User=falx" in text


def test_the_install_script_parses_and_refuses_nonsense() -> None:
    assert run("bash", "-n", "docker/install.sh").returncode == 0
    done = run("docker/install.sh", "nonsense")
    assert done.returncode == 2
    assert "usage" in done.stderr
