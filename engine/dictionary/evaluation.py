"""How well a dictionary describes tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.tokens import TokenSource, open_tokens, sample

EVALUATION_ROWS = 2**20
EVALUATION_BATCH = 8192


class Quality(NamedTuple):
    """What `evaluate` found."""

    r2: float
    """1 - squared error / variance."""

    l0: float
    """Mean number of active concepts per token."""

    dead_share: float
    """Share of concepts that no token activates."""


@torch.no_grad()
def evaluate(
    dictionary: Dictionary, tokens: Tensor | TokenSource, seed: int = 0, targets: Tensor | TokenSource | None = None
) -> Quality:
    """R2, L0 and dead share on up to a million tokens [N, d], and targets [N, d'] if others are to be reconstructed."""
    x = _drawn(dictionary, tokens, seed)
    y = x if targets is None else _drawn(dictionary, targets, seed)
    device = dictionary.mean.device
    centre = y.mean(dim=0)
    error = variance = active = 0.0
    fired = torch.zeros(dictionary.concepts, dtype=torch.bool, device=device)
    rows = max(1, EVALUATION_BATCH // dictionary.together) * dictionary.together
    for given, wanted in zip(x.split(rows), y.split(rows), strict=True):
        codes = dictionary.encode(given.to(device))
        error += float((wanted.to(device) - dictionary.decode(codes)).double().square().sum())
        variance += float((wanted - centre).double().square().sum())
        active += float((codes.values > 0).sum())
        fired[codes.indices[codes.values > 0]] = True
    return Quality(1 - error / variance, active / len(x), 1 - float(fired.float().mean()))


def _drawn(dictionary: Dictionary, tokens: Tensor | TokenSource, seed: int) -> Tensor:
    return sample(open_tokens(tokens), EVALUATION_ROWS, torch.Generator().manual_seed(seed), dictionary.together)
