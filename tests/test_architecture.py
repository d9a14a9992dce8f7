"""The arrows of the house: imports point down only, heavy libraries stay out of light modules."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMON = {"checkpoints", "errors", "files", "devices", "hub"}
"""Single files that every engine package may use."""
ENGINE_UPPER = {
    "samplers": {"priors", "vision", "dictionary", "klsc", "jobs", "atlas"},
    "ratings": {"atlas", "samplers", "vision", "readers"},
    "invariance": {"samplers", "priors", "vision", "dictionary", "blindspots", "jobs", "atlas"},
    "stress": {"samplers", "pipelines", "readers", "vision", "dictionary", "blindspots", "figures", "jobs", "atlas"},
    "atlas": {"blindspots"},
    "reports": {"atlas", "blindspots", "klsc", "figures", "invariance"},
}


def imported(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def offenders(folder: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(folder)
        for name in sorted(imported(path))
        if any(name == bad or name.startswith(bad + ".") for bad in forbidden)
    ]


def test_the_engine_knows_nothing_of_the_floors_above():
    assert offenders("engine", {"streamlit", "pages", "precompute", "app"}) == []


def test_pages_and_precompute_never_import_each_other():
    assert offenders("pages", {"precompute", "app"}) == []
    assert offenders("precompute", {"pages", "app", "streamlit"}) == []


@pytest.mark.parametrize("package", sorted(p.name for p in (ROOT / "engine").iterdir() if (p / "__init__.py").exists()))
def test_engine_packages_import_only_what_stands_below(package: str):
    allowed = ENGINE_UPPER.get(package, set()) | COMMON | {package}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(f"engine/{package}")
        for name in sorted(imported(path))
        if name.startswith("engine.") and name.split(".")[1] not in allowed
    ]
    assert wrong == []


LIGHT = (
    "engine.jobs", "engine.vision.spec", "engine.samplers.records", "engine.reports", "engine.figures",
    "engine.atlas", "engine.blindspots",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """Which slow libraries are there after each of the light modules, imported one after the other."""
    code = (
        "import importlib, json, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        "    print(json.dumps([name, [*{'torch', 'umap'} & {*sys.modules}]]))\n"
    )
    words = [sys.executable, "-c", code, *LIGHT]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return dict(map(json.loads, said.splitlines()))


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_without_torch(loaded, module: str):
    assert loaded[module] == []


def test_no_two_files_import_each_other_in_a_circle():
    paths = [path for folder in ("engine", "pages", "precompute", "benchmarks") for path in files(folder)]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    graph = {name: (imported(path) & modules.keys()) - packages - {name} for name, path in modules.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"These import each other: {' -> '.join(error.args[1])}")
