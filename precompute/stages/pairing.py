"""Which generated image belongs to which real one: by file name, by caption, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

import numpy as np

from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.files import read_json, write_json
from precompute.recipe import Folder
from precompute.runner import Context, Progress, Stage
from precompute.stages.corpus import ImageRecord, SkippedImage, images_of, read_skipped

PAIRING = "pairing.json"
ENOUGH = 0.5
"""`auto` takes file names as the pairing if they match for this share of the smaller source."""


class Pairing(NamedTuple):
    """The pairs of one model with the real images."""

    kind: Literal["stem", "caption", "generated", "none"]
    pair_index: np.ndarray
    """Per generated image the position of its real one, or -1: int64 `[images]`."""


class PairingStage(Stage):
    """`pairing/M`: the real image that each image of a model belongs to."""

    unit = "models"

    def __init__(self, context: Context, model: str) -> None:
        source = context.source(model)
        self.model, self.how = model, source.pairing if isinstance(source, Folder) else "generated"
        after = (context.images_stage(REAL), context.images_stage(model))
        super().__init__(context, f"pairing/{model}", {"how": self.how}, after)

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write `pairing.json`."""
        context, images = self.context, images_of(self.context, self.model)
        if self.how == "generated" and not context.work.summary(context.images_stage(self.model)).get("prompted", True):
            found = Pairing("none", np.full(len(images), -1))
        elif self.how == "generated":
            found = Pairing("generated", np.array([int(image.stem) for image in images], np.int64))
        else:
            sides = (context.folder(context.images_stage(name)) for name in (REAL, self.model))
            skipped = [one for side in sides for one in read_skipped(side)]
            found = pair(images_of(context, REAL), images, self.how, self.model, skipped)
        write_json(folder / PAIRING, {"kind": found.kind, "partner": found.pair_index.tolist()})
        return {"pairing": found.kind, "paired": int((found.pair_index >= 0).sum())}


def pairing_of(context: Context, source: str) -> Pairing:
    """How the images of a source are paired; every real image with itself."""
    if source == REAL:
        return Pairing("none", np.arange(len(images_of(context, REAL))))
    stored = read_json(context.folder(f"pairing/{source}") / PAIRING)
    return Pairing(stored["kind"], np.asarray(stored["partner"], np.int64))


def pair_numbers(context: Context) -> dict[str, np.ndarray]:
    """Per source the pair of each image, or -1: a real image that any model is paired with, and its counterparts."""
    indices = {name: pairing_of(context, name).pair_index for name in context.sources}
    numbers = np.full(len(indices[REAL]), -1)
    paired = np.concatenate([indices[name] for name in context.recipe.models])
    used = np.unique(paired[paired >= 0])
    numbers[used] = np.arange(len(used))
    return {name: np.where(index >= 0, numbers[index], -1) for name, index in indices.items()}


def pair(
    real: Sequence[ImageRecord],
    model: Sequence[ImageRecord],
    how: Literal["auto", "stem", "caption", "none"],
    name: str,
    skipped: Sequence[SkippedImage] = (),
) -> Pairing:
    """Pair a model's images with the real ones; every image is in one pair at most.

    Parameters
    ----------
    real, model : the images of the two sources.
    how : `stem` and `caption` insist that every generated image finds its real one; `auto` takes file names if at
        least half of the smaller source matches and captions do not contradict, else equal captions that no other
        image of the source has, else nothing; `none` does not pair.
    name : the model's, for messages.
    skipped : images of either source that were left out; their counterparts are not mismatches.

    Raises
    ------
    BlindspotError
        If `how` insists and some images do not match.
    """
    if how == "none":
        return Pairing("none", np.full(len(model), -1))
    stems = _match([_composed(image.stem) for image in real], [_composed(image.stem) for image in model])
    captions = _match([_composed(image.caption) for image in real], [_composed(image.caption) for image in model])
    if how == "stem":
        _insist(real, model, stems, how, name, {_composed(one.stem) for one in skipped})
        return Pairing(how, stems)
    if how == "caption":
        _insist(real, model, captions, how, name, set())
        return Pairing(how, captions)
    if (stems >= 0).sum() >= ENOUGH * min(len(real), len(model)) and _agree(real, model, stems):
        return Pairing("stem", stems)
    return Pairing("caption", captions) if (captions >= 0).any() else Pairing("none", captions)


def _composed(text: str | None) -> str | None:
    """Text as it is compared: in Unicode's NFC, in which "é" is one character however it was written."""
    return normalize("NFC", text) if text else None


def _match(real: Sequence[Hashable], model: Sequence[Hashable]) -> np.ndarray:
    """For each key of `model` the position of the same key in `real`, if both have it exactly once; else -1."""
    real_counts, model_counts = Counter(real), Counter(model)
    place = {key: position for position, key in enumerate(real) if key is not None and real_counts[key] == 1}
    return np.array([place.get(key, -1) if model_counts[key] == 1 else -1 for key in model], dtype=np.int64)


def _agree(real: Sequence[ImageRecord], model: Sequence[ImageRecord], index: np.ndarray) -> bool:
    """Whether most pairs in which both images have a caption have the same one."""
    both = [(real[other].caption, model[own].caption) for own, other in enumerate(index) if other >= 0]
    both = [(_composed(one), _composed(other)) for one, other in both if one and other]
    return sum(one == other for one, other in both) >= ENOUGH * len(both)


def _insist(
    real: Sequence[ImageRecord],
    model: Sequence[ImageRecord],
    index: np.ndarray,
    how: str,
    name: str,
    excused: set[str | None],
) -> None:
    unmatched = [image for image, other in zip(model, index, strict=True) if other < 0]
    alone = [image for image in unmatched if _composed(image.stem) not in excused]
    if not alone:
        return
    what = "file name" if how == "stem" else "caption"
    key = alone[0].stem if how == "stem" else alone[0].caption
    raise BlindspotError(
        f"models.{name} is to be paired by {what}, but {len(alone)} of its {len(model)} images have no single "
        f"counterpart among the {len(real)} real ones (for example {key!r}); rename them, or set "
        f"models.{name}.pairing to auto or none."
    )
