"""The three wheels, installed into a fresh environment and used away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BUILD = [sys.executable, "-m", "build"]
PLUGINS = ("adaptive_encoding", "enhancement")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the name of the package in it: vqmon itself and every plugin of the repository."""
    out = tmp_path_factory.mktemp("dist")
    for project in (ROOT, *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))):
        subprocess.run(
            [*BUILD, "--no-isolation", "--wheel", "--outdir", out, project],
            check=True,
            capture_output=True,
        )
    return {built.name.split("-")[0]: built for built in out.glob("*.whl")}


@pytest.fixture(scope="module")
def wheel(wheels: dict[str, Path]) -> Path:
    return wheels["vqmon"]


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheels and vqmon's cpu extra, nothing else."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    constraints = ROOT / "constraints.txt"
    plugins = [built for name, built in wheels.items() if name != "vqmon"]
    subprocess.run(
        [
            *(home / "bin/pip", "install", "-q", "-c", constraints),
            f"{wheels['vqmon']}[cpu]",
            *plugins,
        ],
        check=True,
    )
    return home / "bin"


def use(installed: Path, folder: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more
    return subprocess.run(
        [installed / "vqmon", *args],
        check=False,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_wheel_holds_the_package_and_its_data_only(wheel: Path) -> None:
    """`trainer` or `tests` in site-packages would shadow other people's modules."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"vqmon"}
    for needed in ("model.onnx", "card.json", "migrations/", "py.typed", ".html"):
        assert any(needed in n for n in names), f"{needed} is missing from the wheel"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_s_wheel_holds_its_package_only(wheels: dict[str, Path], plugin: str) -> None:
    """A package named `plugins` in site-packages would be rude, and two of them would collide."""
    names = zipfile.ZipFile(wheels[f"vqmon_{plugin}"]).namelist()

    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {f"vqmon_{plugin}"}
    assert f"vqmon_{plugin}/py.typed" in names


def test_the_installed_plugins_are_found(installed: Path, tmp_path: Path) -> None:
    done = use(installed, tmp_path, "plugins")

    assert done.returncode == 0, done.stderr
    for plugin in PLUGINS:
        assert plugin in done.stdout


def test_a_plugin_s_program_is_a_command_of_vqmon(installed: Path, tmp_path: Path) -> None:
    """As git does it: `vqmon NAME` becomes `vqmon-NAME`, found on PATH."""
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"

    done = use(installed, tmp_path, "adaptive-encoding", "replay", "--help", PATH=path)

    assert done.returncode == 0, done.stderr
    assert "Nothing is asked or changed" in " ".join(done.stdout.split())


def test_nothing_else_can_be_imported(installed: Path, tmp_path: Path) -> None:
    """Nor does the daemon bring torch."""
    code = (
        "import importlib.util as u; "
        "print([n for n in ('trainer','plugins','tests','deploy','benchmarks','torch') "
        "if u.find_spec(n)])"
    )

    out = subprocess.run(
        [installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert out.stdout.strip() == "[]"


def test_probe_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = use(installed, tmp_path, "probe", "--duration", "5", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["quality"] is not None


def test_a_database_is_made_and_a_short_run_fills_it(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "vqmon.yaml"
    config.write_text(
        "data_dir: data\n"
        "streams:\n"
        "  sample:\n"
        "    url: 'synthetic:?size=320x180&fps=10&live=1'\n"
        "    segment: 2s\n"
    )

    upgraded = use(installed, tmp_path, "db", "upgrade", "-c", str(config))
    assert upgraded.returncode == 0, upgraded.stderr
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    daemon = subprocess.Popen([installed / "vqmon", "run", "-c", config], cwd=tmp_path, env=env)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.wait(timeout=20)
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=15) == 0

    report = use(installed, tmp_path, "report", "-c", str(config), "--format", "json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["streams"][0]["segments"] >= 3
