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

from engine.devices import Device, Dtype
from engine.dictionary.spec import DictionarySpec
from engine.priors.spec import PriorSpec
from engine.vision.spec import EncoderConfig


class Part(BaseModel):
    """A block of a recipe: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shown(Part):
    """How a source of images is named in the app."""

    label: str | None = None
    """Shown instead of the source's key."""
    description: str = ""
    """A sentence for the overview page."""


class Folder(Shown):
    """Images in a folder, searched with its subfolders."""

    folder: Path
    """Holds images, and captions if there are any (metadata.jsonl, metadata.csv, captions.csv, or a .txt per image)."""
    pairing: Literal["auto", "stem", "caption", "none"] = "auto"
    """How a generated image finds its real one: `stem` (file name) and `caption` insist, `auto` tries both."""


class World(Shown):
    """Scenes that are drawn by code, with their ground truth."""

    world: Literal["tabletop"]
    count: int = Field(1000, ge=1)
    seed: int = Field(0, ge=0)
    size: int = Field(64, ge=16, le=1024)
    """Side of an image in pixels."""


class Pipeline(Shown):
    """Images drawn by a diffusers text-to-image pipeline from the captions of the real images."""

    pipeline: str
    """A folder or a Hugging Face id."""
    revision: str | None = None
    steps: int = Field(50, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0)
    """Classifier-free guidance scale."""
    scheduler: str | None = None
    """Name of a diffusers scheduler class that replaces the pipeline's own."""
    seed: int = Field(0, ge=0)
    """With an image's index it seeds that image alone, whatever the batch."""
    batch: int = Field(8, ge=1)
    dtype: Dtype = "float32"
    device: Device = "auto"


class LayoutPart(Part):
    """The concept map."""

    seed: int = Field(0, ge=0)
    neighbours: int = Field(15, ge=2)
    min_dist: float = Field(0.1, ge=0, le=1)
    clusters: int = Field(12, ge=1)


class DeltaPart(Part):
    """How delta is computed and read when the atlas is opened; the app can change all of it."""

    estimator: Literal["gap", "relative", "share", "standardised"] = "gap"
    temperature: float = Field(0.8, gt=0)
    """In units of energy for `gap`: the paper's 0.8 suits energies of a few units, smaller energies a smaller one."""
    suppressed: float = Field(0.1, gt=0, lt=0.5)
    """A concept with a delta below this is called suppressed."""
    exaggerated: float = Field(0.9, gt=0.5, lt=1)


class WordsPart(Part):
    """Words that name a concept."""

    count: int = Field(8, ge=0)
    """Words kept per concept."""


class Limits(Part):
    """How much is taken in."""

    images: int | None = Field(None, ge=1)
    """At most this many images per source, the first in order of file name."""
    max_pixels: int = Field(64_000_000, ge=1)
    """Larger images are skipped, counted and listed."""


class Thumbs(Part):
    """The small pictures the app shows."""

    size: int = Field(224, ge=16, le=1024)
    """Longest side in pixels; smaller images keep their size."""


def _tag(value: Any) -> str | None:
    """Which kind of source a block describes, by the one key that only this kind has."""
    if isinstance(value, Shown):
        return f"<{type(value).__name__}>"
    found = [tag for tag, kind in TAGS.items() if isinstance(value, Mapping) and kind.__name__.lower() in value]
    return found[0] if len(found) == 1 else None


TAGS: dict[str, type[Shown]] = {"<Folder>": Folder, "<World>": World, "<Pipeline>": Pipeline}

Real = Annotated[Annotated[Folder, Tag("<Folder>")] | Annotated[World, Tag("<World>")], Discriminator(_tag)]
Model = Annotated[Annotated[Folder, Tag("<Folder>")] | Annotated[Pipeline, Tag("<Pipeline>")], Discriminator(_tag)]


class Recipe(Part):
    """Everything that decides what is in an atlas."""

    name: str
    description: str = ""
    real: Real
    """The real images: `{folder: DIR}` or `{world: tabletop, count: N, seed: S}`; a plain string is a folder."""
    models: dict[str, Model]
    """The generated ones: `NAME: {folder: DIR}` or `NAME: {pipeline: ID}`; a plain string is a folder."""
    encoder: EncoderConfig
    dictionary: DictionarySpec = DictionarySpec()
    layout: LayoutPart = LayoutPart()
    words: WordsPart = WordsPart()
    delta: DeltaPart = DeltaPart()
    prior: PriorSpec | None = None
    limits: Limits = Limits()
    thumbs: Thumbs = Thumbs()

    @field_validator("models")
    @classmethod
    def _names(cls, models: dict[str, Any]) -> dict[str, Any]:
        if not models:
            raise ValueError("needs at least one model, for example --set models.NAME=FOLDER")
        for name in models:
            if name == "real" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"has a model called {name!r}; use letters, digits, - and _, and not the name 'real'")
        return models
