"""What a recipe may say: the validated form of the YAML files in data/recipes.

Every field is documented below it; the blocks of models are the classes of the engine that use them.
`precompute.recipe_files` reads the YAML, resolves its paths and applies `--set`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from engine.blindspots.delta import DeltaSettings
from engine.devices import Device, Dtype
from engine.dictionary.spec import DictionarySpec
from engine.priors.spec import PriorSpec
from engine.vision.spec import EncoderConfig


class RecipeBlock(BaseModel):
    """A block of a recipe: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSource(RecipeBlock):
    """How a source of images is named in the app."""

    label: str | None = None
    """Shown instead of the source's key."""
    description: str = ""
    """A sentence for the overview page."""


class Folder(ImageSource):
    """Images in a folder, searched with its subfolders."""

    folder: Path
    """Holds images, and captions if there are any (metadata.jsonl, metadata.csv, captions.csv, or a .txt per image)."""
    pairing: Literal["auto", "stem", "caption", "none"] = "auto"
    """How a generated image finds its real one: `stem` (file name) and `caption` insist, `auto` tries both."""


class World(ImageSource):
    """Scenes that are drawn by code, with their ground truth."""

    world: Literal["tabletop"]
    count: Annotated[int, Field(ge=1)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=16, le=1024)] = 64
    """Side of an image in pixels."""


class Pipeline(ImageSource):
    """Images drawn by a diffusers text-to-image pipeline from the captions of the real images."""

    pipeline: str
    """A folder or a Hugging Face id."""
    revision: str | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance: Annotated[float, Field(ge=0)] = 7.5
    """Classifier-free guidance scale."""
    scheduler: str | None = None
    """Name of a diffusers scheduler class that replaces the pipeline's own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """With an image's index it seeds that image alone, whatever the batch."""
    batch: Annotated[int, Field(ge=1)] = 8
    dtype: Dtype = "float32"
    device: Device = "auto"


class LayoutConfig(RecipeBlock):
    """The concept map."""

    seed: Annotated[int, Field(ge=0)] = 0
    neighbours: Annotated[int, Field(ge=2)] = 15
    min_dist: Annotated[float, Field(ge=0, le=1)] = 0.1
    clusters: Annotated[int, Field(ge=1)] = 12


class WordsConfig(RecipeBlock):
    """Words that name a concept."""

    count: Annotated[int, Field(ge=0)] = 8
    """Words kept per concept."""


class Limits(RecipeBlock):
    """How much is taken in."""

    images: Annotated[int | None, Field(ge=1)] = None
    """At most this many images per source, the first in order of file name."""
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    """Larger images are skipped, counted and listed."""


class ThumbnailConfig(RecipeBlock):
    """The small pictures the app shows."""

    size: Annotated[int, Field(ge=16, le=1024)] = 224
    """Longest side in pixels; smaller images keep their size."""


def _tag(value: Any) -> str | None:
    """Which kind of source a block describes, by the one key that only this kind has."""
    if isinstance(value, ImageSource):
        return f"<{type(value).__name__}>"
    found = [tag for tag, kind in TAGS.items() if isinstance(value, Mapping) and kind.__name__.lower() in value]
    return found[0] if len(found) == 1 else None


TAGS: dict[str, type[ImageSource]] = {"<Folder>": Folder, "<World>": World, "<Pipeline>": Pipeline}

Real = Annotated[Annotated[Folder, Tag("<Folder>")] | Annotated[World, Tag("<World>")], Discriminator(_tag)]
Model = Annotated[Annotated[Folder, Tag("<Folder>")] | Annotated[Pipeline, Tag("<Pipeline>")], Discriminator(_tag)]


class Recipe(RecipeBlock):
    """Everything that decides what is in an atlas."""

    name: str
    description: str = ""
    real: Real
    """The real images: `{folder: DIR}` or `{world: tabletop, count: N, seed: S}`; a plain string is a folder."""
    models: dict[str, Model]
    """The generated ones: `NAME: {folder: DIR}` or `NAME: {pipeline: ID}`; a plain string is a folder."""
    encoder: EncoderConfig
    dictionary: DictionarySpec = DictionarySpec()
    layout: LayoutConfig = LayoutConfig()
    words: WordsConfig = WordsConfig()
    delta: DeltaSettings = DeltaSettings()
    prior: PriorSpec | None = None
    limits: Limits = Limits()
    thumbs: ThumbnailConfig = ThumbnailConfig()

    @field_validator("models")
    @classmethod
    def _names(cls, models: dict[str, Any]) -> dict[str, Any]:
        if not models:
            raise ValueError("needs at least one model, for example --set models.NAME=FOLDER")
        for name in models:
            if name == "real" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"has a model called {name!r}; use letters, digits, - and _, and not the name 'real'")
        return models
