"""What each model gets wrong on purpose, and by how much: the truth that an analysis of its atlas can be held to.

Half of the planted concepts of a model are suppressed and half exaggerated; of each half, one half is planted in every
model (universal) and the other in this one alone (specific). Nothing else differs between real images and a model's,
in expectation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from engine.errors import BlindspotError
from precompute.synthetic.world import World

SUPPRESSED, EXAGGERATED = (0.02, 0.25), (3.0, 8.0)
"""Range of the factor by which a planted concept's expected energy changes; uniform on a log scale."""
FREQUENT = (0.75, 0.97)
"""Quantiles of frequency between which concepts are planted: rarer ones say little in 10,000 images."""


class Planted(NamedTuple):
    """The planted concepts of one model."""

    concepts: np.ndarray
    """int32 `[planted]`, rising."""
    factor: np.ndarray
    """float64 `[planted]`, expected energy in the model over that in real images."""
    universal: np.ndarray
    """bool `[planted]`, whether it is planted in every model."""

    @property
    def suppressed(self) -> np.ndarray:
        """The concepts whose energy is lowered."""
        return self.concepts[self.factor < 1]

    @property
    def exaggerated(self) -> np.ndarray:
        """The concepts whose energy is raised."""
        return self.concepts[self.factor > 1]


def plant(world: World, count: int, rng: np.random.Generator) -> list[Planted]:
    """Choose `count` concepts and their factors for every model.

    Raises
    ------
    BlindspotError
        If the world has fewer concepts that can be planted.
    """
    low, high = np.quantile(world.fires, FREQUENT)
    fit = np.flatnonzero((world.fires >= low) & (world.fires <= high) & (world.community > 0))
    models = world.size.models
    universal = count // 2
    if count < 0 or universal + models * (count - universal) > len(fit):
        raise BlindspotError(
            f"--planted {count} does not fit: {world.size.concepts} concepts and {models} models allow 0 to "
            f"{2 * len(fit) // (models + 1) // 2 * 2}."
        )
    chosen = rng.permutation(fit)
    shared, own = chosen[:universal], chosen[universal:]
    shared_factor = _factors(universal, rng)
    found = []
    for model in range(models):
        specific = own[model * (count - universal) : (model + 1) * (count - universal)]
        concepts = np.concatenate([shared, specific])
        factor = np.concatenate([shared_factor, _factors(len(specific), rng)])
        order = np.argsort(concepts)
        found.append(Planted(concepts[order].astype(np.int32), factor[order], np.arange(count)[order] < universal))
    return found


def as_document(planted: Mapping[str, Planted], seed: int) -> dict[str, Any]:
    """The planted concepts of all models as JSON."""
    models = {
        name: [
            {"concept": int(concept), "factor": round(float(factor), 6), "universal": bool(universal)}
            for concept, factor, universal in zip(*one, strict=True)
        ]
        for name, one in planted.items()
    }
    return {"seed": seed, "models": models}


def _factors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Every other one below and above 1."""
    low, high = (np.exp(rng.uniform(*np.log(bounds), count)) for bounds in (SUPPRESSED, EXAGGERATED))
    return np.where(np.arange(count) % 2 == 0, low, high)
