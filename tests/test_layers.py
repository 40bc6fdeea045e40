"""The architecture, as a test: a module imports only from its own row or the rows above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    {"domain", "errors"},
    {"ports"},
    {
        "sampling",
        "segmenting",
        "preprocess",
        "patches",
        "measures",
        "signals",
        "explain",
        "alerting",
    }
    | {"deciding", "likeness", "notifying", "writing", "cascade"}
    | {"audio", "summing", "quantities"},
    {"pipeline", "testing"},
    {"sources", "scorers", "store", "evidence", "notifiers"},  # adapters: also not each other
    {"config", "configfile", "settings", "logs", "report", "retention", "daemon", "demo"}
    | {"plugins", "comparing", "oncall", "doctor", "files", "outbox", "probe", "terminal"}
    | {"webhooks", "asking", "metrics"},
    {"cli", "arguments", "__main__", "__init__"},
]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}
ADAPTERS = LAYERS[4]

HEAVY = {
    "av": {"sources", "evidence", "demo"},
    "onnxruntime": set(),
    "torch": set(),
    "transformers": set(),
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "httpx": {"notifiers"},
    "httpcore": {"notifiers"},
    "apprise": set(),
    "prometheus_client": {"metrics"},
}
"""Who may import these at module level; all others import them late, inside functions."""

FILES = sorted((ROOT / "vqmon").rglob("*.py"))


def module(path: Path) -> str:
    return path.relative_to(ROOT / "vqmon").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Top-level vqmon modules that a file imports."""
    found = set()
    for node in _run_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vqmon":
            found |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vqmon."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("vqmon.")}
    return found - {module(path)}


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _run_nodes(node)


def at_module_level(path: Path) -> set[str]:
    """Foreign top-level packages that importing this file imports."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """A newcomer can read any file knowing only the rows above it."""
    row = ROW[module(path)]

    for other in imported(path):
        assert ROW[other] <= row, f"{module(path)} must not import {other}"
        if module(path) in ADAPTERS:
            assert other not in ADAPTERS, f"adapters stay apart: {module(path)}, {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_in_their_adapters(path: Path) -> None:
    """`vqmon --help` is instant, and a bare install works without torch or a GPU runtime."""
    for package in at_module_level(path) & HEAVY.keys():
        assert module(path) in HEAVY[package], f"import {package} late in {module(path)}"


def test_vqmon_never_imports_what_is_not_in_its_wheel() -> None:
    """The trainer, the plugins and the tests stay in the checkout."""
    for path in FILES:
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        }

        assert not {n.split(".")[0] for n in names} & {"trainer", "plugins", "tests"}, path


def test_plugins_use_what_is_promised_to_stay() -> None:
    """They prove the plugin API from outside: what they need, others need too."""
    promised = {"vqmon", "vqmon.domain", "vqmon.ports"}
    for path in sorted((ROOT / "plugins").glob("*/vqmon_*/**/*.py")):
        for node in _run_nodes(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vqmon":
                assert node.module in promised, f"{path}: {node.module}"


def test_the_command_line_starts_without_heavy_packages() -> None:
    """Asking for help must not cost a second, nor fail where a runtime is missing."""
    code = (
        "import sys, vqmon.cli; "
        "print(sorted({'av','numpy','torch','onnxruntime','sqlalchemy','pydantic','rich'} "
        "& set(sys.modules)))"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"
