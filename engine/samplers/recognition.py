"""Does a drawing show its concept? An independent judge looks at the images, where the concept stands for a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import BlindspotError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from engine.atlas.reader import Atlas
    from engine.samplers.models import ModelBundle

REACHES = 0.95
"""Share of the best real images' mean score from which a drawing counts as reaching it."""
FOOLING = "reaches the score, not recognised"
FOOLING_METHODS = {
    "pixels": "optimised pixels", "fourier": "optimised Fourier coefficients", "maco": "MACO's optimised phases",
}  # fmt: skip
"""What is optimised to fool a concept's score (`engine.samplers.robustness`), by name."""
FOOLING_STEPS, FOOLING_SEEDS = 100, 1
"""Optimisation steps, and images of each method, unless others are asked for; MACO's authors take 1000 steps."""


@dataclass(frozen=True)
class Recognition:
    """What the atlas's judge says of the images drawn for one concept."""

    label: str
    """What the concept stands for, in the judge's words."""
    recognised: tuple[bool, ...]
    """Per image, whether the judge sees it; empty if none was judged."""
    missing: str = ""
    """Why none was judged, in a sentence."""

    @property
    def share(self) -> float | None:
        """Share of the images that are recognised; None if none was judged."""
        return float(np.mean(self.recognised)) if self.recognised else None


def concept_label(atlas: Atlas, concepts: Sequence[int]) -> str | None:
    """The judge's label that a single concept stands for; None for sets of concepts and where there is no match."""
    if len(concepts) != 1 or not atlas.has("recognition"):
        return None
    table = atlas.recognition()
    return str(table["label"].at[concepts[0]]) if concepts[0] in table.index else None


def recognise(models: ModelBundle, concepts: Sequence[int], images: Tensor) -> Recognition | None:
    """Ask the atlas's judge whether images [n, 3, H, W] in [0, 1] show what a concept stands for.

    None for a concept without a label. A judge that may not be loaded or is broken is no error: its sentence is kept.
    """
    label = concept_label(models.atlas, concepts)
    if label is None:
        return None
    threshold = models.atlas.recognition()["threshold"].astype(float).to_dict()[concepts[0]]
    try:
        seen = models.judge.sees(images, label, None if np.isnan(threshold) else threshold)
    except BlindspotError as error:
        return Recognition(label, (), str(error))
    return Recognition(label, tuple(map(bool, seen)))


def plain_label(label: str) -> str:
    """A label as a person says it: "kind: disc" is a disc."""
    return label.rpartition(": ")[2] or label


def recognition_sentence(label: str, recognised: Sequence[bool], missing: str = "") -> str:
    """What stands above drawings: how many are recognised, or why none was judged."""
    if not recognised:
        return f"Not judged as {plain_label(label)}: {missing}" if missing else ""
    return f"Recognised as {plain_label(label)}: {sum(recognised)} of {len(recognised)}"


def verdicts(recognised: Sequence[Any], scores: Sequence[float], best: float | None) -> list[str]:
    """What stands below each drawing; empty for one that was not judged.

    Parameters
    ----------
    recognised
        Per image True, False, or None.
    scores
        Their scores.
    best
        Mean score of the best real images; None or NaN if there are none.
    """
    reached = best is not None and best == best and best > 0
    return [
        "" if seen is None else "recognised" if seen
        else FOOLING if reached and score >= REACHES * float(best or 0) else "not recognised"
        for seen, score in zip(recognised, scores, strict=True)
    ]  # fmt: skip


def fooling_sentence(attempts: pd.DataFrame, label: str | None) -> str:
    """How far the best image that was made to fool a concept gets; empty if none was made.

    Parameters
    ----------
    attempts
        The concept's rows of `Atlas.fooling`.
    label
        What the concept stands for, in the judge's words; None for nothing.
    """
    from pandas import isna

    known = attempts[attempts["reference_score"] > 0]
    if known.empty:
        return ""
    best = known.iloc[int(known["score"].to_numpy().argmax())]
    method = FOOLING_METHODS.get(best["method"], best["method"])
    said = f"Fooling: {method} reach {best['score'] / best['reference_score']:.2f} × the best real images' score"
    if label is not None and not isna(best["recognised"]):
        said += f" and are {'' if best['recognised'] else 'not '}recognised as {plain_label(label)}"
    ways = f"best of {len(known)} methods, " if len(known) > 1 else ""
    seeds = f"{best['seeds']} seed{'' if best['seeds'] == 1 else 's'}"
    return f"{said} ({ways}{best['steps']} steps, {seeds})."
