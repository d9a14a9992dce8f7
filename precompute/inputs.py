"""What decides a stage's result: the fields of a recipe's block, and models by content or by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.hub import find_model

HOW = {"device", "batch", "label", "description"}
"""Fields that say how a stage runs or what a source is called, not what comes out."""


def decisive(part: Any, *others: str) -> dict[str, Any]:
    """The fields of a block that decide a result, JSON-friendly, also without `others`."""
    return TypeAdapter(type(part)).dump_python(part, mode="json", exclude=HOW | set(others))


def model_input(key: str, ref: str, params: dict[str, Any]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Parameters and inputs of a stage that uses a model: a folder counts by its contents, a hub id by its name.

    Raises:
        BlindspotError: `ref` is a path and there is no folder.
    """
    missing = f"{key} is {ref}, but there is no such folder; give a folder or a Hugging Face id."
    found = find_model(ref, missing)
    return (params, (found,)) if isinstance(found, Path) else (params | {"model": found}, ())


def reference(ref: str, out: Path) -> str:
    """How an atlas at `out` names a model: relative if it lies beside the atlas, so that both can be moved together."""
    path = Path(ref)
    if path.is_dir() and path.is_relative_to(out.parent):
        return Path(os.path.relpath(path, out)).as_posix()
    return ref
