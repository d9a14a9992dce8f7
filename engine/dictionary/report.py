"""What a dictionary is worth, in the numbers by which SAEs are compared: fit, sparsity, use, atoms, stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.coherence import Coherence, coherence
from engine.dictionary.hull import HullDistance, anchors, hull_distance
from engine.dictionary.stability import Stability, stability
from engine.dictionary.tokens import open_tokens
from engine.dictionary.usage import ONE_SHARD, Tokens, Usage, measure_usage

HULL_POINTS = 1024
"""Centroids whose convex hull stands for the data of a dictionary that has no candidates of its own."""


@dataclass(frozen=True)
class DictionaryReport:
    """Everything `report` measures. Tensors are on the CPU, one entry per concept unless said otherwise."""

    usage: Usage
    """R2, FVU, L0, dead share and frequencies, on the tokens given."""
    coherence: Coherence
    """For every atom, the most alike other one."""
    hull: HullDistance
    """How far every atom lies from the data, as a share of the data's radius."""
    hull_points: int
    """Number of points whose convex hull stands for the data."""
    hull_own: bool
    """Whether they are the dictionary's own candidates; if not, k-means centroids of the tokens."""
    stability: Stability | None
    """Agreement with the same dictionary trained from other seeds; None if there are none."""

    def summary(self) -> dict[str, Any]:
        """The headline numbers and the L0 histogram, JSON-ready; the rest is per concept."""
        stable = None
        if self.stability is not None:
            pairs = [[round(value, 6) for value in row] for row in self.stability.pairs.tolist()]
            stable = {"mean": round(self.stability.mean, 6), "pairs": pairs}
        return {
            "tokens": self.usage.tokens,
            "r2": round(self.usage.r2, 6),
            "fvu": round(self.usage.fvu, 6),
            "l0": round(self.usage.l0, 6),
            "l0_counts": self.usage.active.tolist(),
            "dead_share": round(self.usage.dead_share, 6),
            "coherence": round(float(self.coherence.value.mean()), 6),
            "hull": {
                "distance": round(float(self.hull.value.mean()), 6),
                "uncertainty": round(float((self.hull.value - self.hull.lower).max()), 6),
                "points": self.hull_points,
                "own_points": self.hull_own,
            },
            "stability": stable,
        }


@torch.no_grad()
def report(
    dictionary: Dictionary,
    tokens: Tokens,
    *,
    targets: Tokens | None = None,
    others: Sequence[Tensor] = (),
    usage: Usage | None = None,
    hull_points: int = HULL_POINTS,
    seed: int = 0,
) -> DictionaryReport:
    """Measure a dictionary on tokens.

    Parameters
    ----------
    dictionary
        On the device that is to do the work.
    tokens
        Raw tokens [N, d], or paths of .npy shards of them, of which one at a time is in memory.
    targets
        What a transcoder is to reconstruct [N, d'], if not the tokens themselves.
    others
        Atoms [K, d] of the same dictionary trained from other seeds.
    usage
        What `measure_usage` found on the tokens, if that is known already.
    hull_points, seed
        Centroids that stand for the data (for an RA-SAE its own candidates do), and their seed.

    Raises
    ------
    BlindspotError
        When the tokens do not fit the dictionary, or other atoms do not.
    """
    usage = usage or measure_usage(dictionary, tokens, targets)
    atoms = dictionary.atoms()
    found = anchors(dictionary, open_tokens(tokens if targets is None else targets, ONE_SHARD), hull_points, seed)
    return DictionaryReport(
        usage=usage,
        coherence=coherence(atoms),
        hull=hull_distance(found.targets, found.points, found.start),
        hull_points=len(found.points),
        hull_own=found.own,
        stability=stability([atoms, *others]) if others else None,
    )
