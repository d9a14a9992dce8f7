"""What the stages of a recipe share: the recipe, the work directory, and what counts in a fingerprint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.atlas.schema import REAL
from engine.atlas.writer import AtlasWriter
from engine.hub import find_model
from precompute.recipe import Folder, Pipeline, Recipe, World
from precompute.runner import Stage, WorkDirectory

NOT_IN_FINGERPRINT = {"device", "batch", "label", "description"}
"""Fields that say how a stage runs or what a source is called, not what the result is."""


class Context:
    """One build of a recipe.

    Parameters
    ----------
    recipe : what is built.
    work : where the stages keep their results.
    out : the atlas's folder, absolute.
    """

    def __init__(self, recipe: Recipe, work: WorkDirectory, out: Path) -> None:
        self.recipe, self.work, self.out = recipe, work, out
        self.sources = (REAL, *recipe.models)
        """Names of all sources of images, the real one first."""

    def source(self, name: str) -> Folder | World | Pipeline:
        """What the recipe says of a source."""
        return self.recipe.real if name == REAL else self.recipe.models[name]

    def images_stage(self, name: str) -> str:
        """Name of the stage that provides a source's images."""
        return f"{'generate' if isinstance(self.source(name), Pipeline) else 'corpus'}/{name}"

    def folder(self, stage: str) -> Path:
        """Where a stage keeps its results."""
        return self.work.folder(stage)


class RecipeStage(Stage):
    """A stage that reads the recipe and the results of other stages from a `Context`.

    Parameters
    ----------
    context : of the build.
    name, params, after, reads : as for `Stage`.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        params: Mapping[str, Any] | None = None,
        after: Sequence[str] = (),
        reads: Sequence[Path] = (),
    ) -> None:
        super().__init__(name, params, after, reads)
        self.context = context

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write what all stages of this class, one per source perhaps, add to the atlas; nothing by default."""


def fingerprint_fields(block: Any, *others: str) -> dict[str, Any]:
    """The fields of a recipe's block that decide a result, JSON-friendly, without `others`."""
    return TypeAdapter(type(block)).dump_python(block, mode="json", exclude=NOT_IN_FINGERPRINT | set(others))


def model_input(key: str, ref: str, params: dict[str, Any]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """`params` and `reads` of a stage that uses a model: a folder counts by its contents, a hub id by its name.

    Raises
    ------
    BlindspotError
        If `ref` is a path and there is no folder.
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
