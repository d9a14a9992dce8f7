"""Which generated image belongs to which real one: by file name, by caption, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from engine.errors import BlindspotError
from precompute.stages.manifest import Picture, Skipped

ENOUGH = 0.5
"""`auto` takes file names as the pairing if they match for this share of the smaller source."""


class Pairing(NamedTuple):
    """The pairs of one model with the real images."""

    kind: Literal["stem", "caption", "none"]
    partner: np.ndarray
    """Per generated image the position of its real one, or -1: int64 `[images]`."""


def pair(
    real: Sequence[Picture],
    model: Sequence[Picture],
    how: Literal["auto", "stem", "caption", "none"],
    name: str,
    skipped: Sequence[Skipped] = (),
) -> Pairing:
    """Pair a model's images with the real ones; every image is in one pair at most.

    Args:
        real, model: the images of the two sources.
        how: `stem` and `caption` insist that every generated image finds its real one; `auto` takes file names if at
            least half of the smaller source matches and captions do not contradict, else equal captions that no other
            image of the source has, else nothing; `none` does not pair.
        name: the model's, for messages.
        skipped: images of either source that were left out; their partners are not mismatches.

    Raises:
        BlindspotError: `how` insists and some images do not match.
    """
    if how == "none":
        return Pairing("none", np.full(len(model), -1))
    stems = _match([picture.stem for picture in real], [picture.stem for picture in model])
    captions = _match([picture.caption for picture in real], [picture.caption for picture in model])
    if how != "auto":
        excused = {one.stem for one in skipped} if how == "stem" else set()
        partner = stems if how == "stem" else captions
        _insist(real, model, partner, how, name, excused)
        return Pairing(how, partner)
    if (stems >= 0).sum() >= ENOUGH * min(len(real), len(model)) and _agree(real, model, stems):
        return Pairing("stem", stems)
    return Pairing("caption", captions) if (captions >= 0).any() else Pairing("none", captions)


def _match(real: Sequence[Hashable], model: Sequence[Hashable]) -> np.ndarray:
    """For each key of `model` the position of the same key in `real`, if both have it exactly once; else -1."""
    real_counts, model_counts = Counter(real), Counter(model)
    place = {key: position for position, key in enumerate(real) if key is not None and real_counts[key] == 1}
    return np.array([place.get(key, -1) if model_counts[key] == 1 else -1 for key in model], dtype=np.int64)


def _agree(real: Sequence[Picture], model: Sequence[Picture], partner: np.ndarray) -> bool:
    """Whether most pairs in which both images have a caption have the same one."""
    both = [(real[other].caption, model[own].caption) for own, other in enumerate(partner) if other >= 0]
    both = [(one, other) for one, other in both if one and other]
    return sum(one == other for one, other in both) >= ENOUGH * len(both)


def _insist(
    real: Sequence[Picture], model: Sequence[Picture], partner: np.ndarray, how: str, name: str, excused: set[str]
) -> None:
    unmatched = [picture for picture, other in zip(model, partner, strict=True) if other < 0]
    alone = [picture for picture in unmatched if picture.stem not in excused]
    if not alone:
        return
    what = "file name" if how == "stem" else "caption"
    key = alone[0].stem if how == "stem" else alone[0].caption
    raise BlindspotError(
        f"models.{name} is to be paired by {what}, but {len(alone)} of its {len(model)} images have no single "
        f"counterpart among the {len(real)} real ones (for example {key!r}); rename them, or set "
        f"models.{name}.pairing to auto or none."
    )
