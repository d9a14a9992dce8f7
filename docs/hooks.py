"""What mkdocs does beside rendering: pictures from `data/`, and a reference page for every module of the engine."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {
    "images/map.webp": ROOT / "data" / "screenshot.webp",
    "images/invariance.webp": ROOT / "data" / "invariance.webp",
    "images/methods.webp": ROOT / "data" / "samplers" / "examples.webp",
}
GUIDE = [
    {"Home": "index.md"},
    {"Your own images": ["own-images.md", "generators.md", "growing.md"]},
    {"What the numbers mean": "numbers.md"},
    {"Labels and readers": "readers.md"},
    {"What was measured": ["demo.md", "dictionaries.md", "sampling.md"]},
    {"Ratings": "ratings.md"},
    {"Gallery": "gallery.md"},
]


def on_config(config: Any) -> Any:
    """Put the reference pages behind the guide."""
    packages: dict[str, list[dict[str, str]]] = {}
    for module in _modules():
        package = ".".join(module.split(".")[:2])
        packages.setdefault(package, []).append({module: f"reference/{module}.md"})
    config.nav = [*GUIDE, {"Reference": [{package: pages} for package, pages in packages.items()]}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures and the reference pages."""
    for name, source in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(source)))
    for module in _modules():
        files.append(File.generated(config, f"reference/{module}.md", content=f"# {module}\n\n::: {module}\n"))
    return files


def _modules() -> list[str]:
    """Return the engine's modules that define something, as dotted names."""
    paths = sorted((ROOT / "engine").rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if _defines(path)]


def _defines(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return path.name != "__init__.py" and any(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in body)
