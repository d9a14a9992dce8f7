"""What a dictionary is worth, in the numbers by which SAEs are compared: fit, sparsity, use, atoms, stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.geometry import (
    Coherence,
    HullDistance,
    Stability,
    atoms_and_hull,
    coherence,
    hull_distance,
    stability,
)
from engine.dictionary.tokens import ENCODE_AGAIN, Tokens, open_tokens, sample
from engine.errors import BlindspotError

BATCH = 8192
"""Tokens encoded at once."""
EVALUATION_ROWS = 2**20
ONE_SHARD = 0
"""Bytes of shards to keep: none, so that no more than the one being read is in memory."""
HULL_POINTS = 1024
"""Centroids whose convex hull stands for the data of a dictionary that has no candidates of its own."""


@dataclass(frozen=True)
class Usage:
    """Sums over tokens; those of two sets of tokens add up to those of both (`joined`)."""

    tokens: int
    """Number of tokens N."""
    total: Float[Tensor, " d"]
    """Sum of the tokens (of the targets, for a transcoder that has others), float64."""
    squares: float
    """Sum of their squared entries."""
    error: float
    """Sum of the squared entries of what they and their reconstructions differ by."""
    fires: Int[Tensor, " K"]
    """Tokens in which each concept is active."""
    active: Int[Tensor, " most+1"]
    """Tokens by their number of active concepts."""

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: squared error over the squared distance from the tokens' own mean."""
        variance = self.squares - float(self.total.square().sum()) / self.tokens
        return self.error / variance if variance > 0 else float("nan")

    @property
    def r2(self) -> float:
        """1 - FVU."""
        return 1 - self.fvu

    @property
    def l0(self) -> float:
        """Mean number of active concepts per token."""
        return float(self.fires.sum()) / self.tokens

    @property
    def dead_share(self) -> float:
        """Share of concepts that no token activates."""
        return float((self.fires == 0).double().mean())


@torch.no_grad()
def measure_usage(dictionary: Dictionary, tokens: Tokens, targets: Tokens | None = None) -> Usage:
    """Encode and decode all tokens once, one shard in memory at a time.

    `targets` are what a transcoder is to reconstruct [N, d'], if not the tokens themselves.

    Raises
    ------
    BlindspotError
        When tokens or targets have another width, or hold NaN or infinite numbers.
    """
    source = open_tokens(tokens, ONE_SHARD)
    wanted = source if targets is None else open_tokens(targets, ONE_SHARD)
    if (wanted.rows, wanted.dim) != (source.rows, dictionary.out_dim):
        raise BlindspotError(
            f"This dictionary reconstructs {source.rows} tokens of width {dictionary.out_dim}, not {wanted.rows} of "
            f"width {wanted.dim}; give the tokens or targets that it was trained on."
        )
    device = dictionary.mean.device
    total = torch.zeros(dictionary.out_dim, dtype=torch.float64, device=device)
    fires = torch.zeros(dictionary.concepts, dtype=torch.int64, device=device)
    active = torch.zeros(1, dtype=torch.int64)
    squares = error = 0.0
    for rows in torch.arange(source.rows).split(max(1, BATCH // dictionary.group_size) * dictionary.group_size):
        x = source.gather(rows).to(device)
        y = x if wanted is source else wanted.gather(rows).to(device)
        codes = dictionary.encode(x)
        total += y.double().sum(dim=0)
        squares += float(y.double().square().sum())
        error += float((y - dictionary.decode(codes)).double().square().sum())
        fired = codes.values > 0
        fires += torch.bincount(codes.indices[fired], minlength=dictionary.concepts)
        active = _added(active, torch.bincount(fired.sum(dim=-1)).cpu())
    found = Usage(source.rows, total.cpu(), squares, error, fires.cpu(), active)
    if not torch.tensor([found.squares, found.error]).isfinite().all():
        raise BlindspotError(
            "The tokens, or their reconstructions, hold NaN or infinite numbers, so nothing can be said of this "
            f"dictionary; {ENCODE_AGAIN}, or train the dictionary again."
        )
    return found


def joined(parts: Sequence[Usage]) -> Usage:
    """The usage on all tokens from the usages on parts of them."""
    return Usage(
        sum(part.tokens for part in parts),
        reduce(torch.add, [part.total for part in parts]),
        sum(part.squares for part in parts),
        sum(part.error for part in parts),
        reduce(torch.add, [part.fires for part in parts]),
        reduce(_added, [part.active for part in parts]),
    )


def _added(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two histograms over 0, 1, 2, ... of different lengths."""
    width = max(len(a), len(b))
    return F.pad(a, (0, width - len(a))) + F.pad(b, (0, width - len(b)))


def evaluate(dictionary: Dictionary, tokens: Tokens, seed: int = 0, targets: Tokens | None = None) -> Usage:
    """`measure_usage` on up to a million of the tokens, drawn at random."""

    def drawn(some: Tokens) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample(open_tokens(some), EVALUATION_ROWS, generator, dictionary.group_size)

    return measure_usage(dictionary, drawn(tokens), None if targets is None else drawn(targets))


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
    others: Sequence[Tensor] = (),
    usage: Usage | None = None,
    hull_points: int = HULL_POINTS,
    seed: int = 0,
) -> DictionaryReport:
    """Measure a dictionary on tokens.

    Parameters
    ----------
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
    usage = usage or measure_usage(dictionary, tokens)
    atoms = dictionary.atoms()
    found = atoms_and_hull(dictionary, open_tokens(tokens, ONE_SHARD), hull_points, seed)
    return DictionaryReport(
        usage=usage,
        coherence=coherence(atoms),
        hull=hull_distance(found.atoms, found.points, found.start),
        hull_points=len(found.points),
        hull_own=found.own,
        stability=stability([atoms, *others]) if others else None,
    )
