"""How a dictionary is used: what it explains of tokens and how often each concept fires, summed shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.tokens import TokenSource, open_tokens
from engine.errors import BlindspotError

Tokens = Tensor | TokenSource | Sequence[str | Path]
BATCH = 8192
"""Tokens encoded at once."""
ONE_SHARD = 0
"""Bytes of shards to keep: none, so that no more than the one being read is in memory."""


@dataclass(frozen=True)
class Usage:
    """Sums over tokens; those of two sets of tokens add up to those of both (`joined`)."""

    tokens: int
    """Number of tokens N."""
    total: Tensor
    """Sum of the tokens (of the targets, for a transcoder that has others), float64 [d]."""
    squares: float
    """Sum of their squared entries."""
    error: float
    """Sum of the squared entries of what they and their reconstructions differ by."""
    fires: Tensor
    """Tokens in which each concept is active, int64 [K]."""
    active: Tensor
    """Tokens by their number of active concepts, int64 [most + 1]."""

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

    @property
    def frequency(self) -> Tensor:
        """Share of tokens in which each concept is active, float64 [K]."""
        return self.fires.double() / self.tokens


@torch.no_grad()
def measure_usage(dictionary: Dictionary, tokens: Tokens, targets: Tokens | None = None) -> Usage:
    """Encode and decode all tokens once, one shard in memory at a time.

    Parameters
    ----------
    dictionary
        On the device that is to do the work.
    tokens
        Raw tokens [N, d], or paths of .npy shards of them.
    targets
        What a transcoder is to reconstruct [N, d'], if not the tokens themselves.

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
    for rows in torch.arange(source.rows).split(max(1, BATCH // dictionary.together) * dictionary.together):
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
            "dictionary; encode the images again in float32, or train the dictionary again."
        )
    return found


def joined(parts: Sequence[Usage]) -> Usage:
    """The usage on all tokens from the usages on parts of them."""
    first, *others = parts
    for part in others:
        first = Usage(
            first.tokens + part.tokens,
            first.total + part.total,
            first.squares + part.squares,
            first.error + part.error,
            first.fires + part.fires,
            _added(first.active, part.active),
        )
    return first


def _added(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two histograms over 0, 1, 2, ... of different lengths."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    longer = longer.clone()
    longer[: len(shorter)] += shorter
    return longer
