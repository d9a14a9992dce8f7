"""Bringing dead concepts back (Gao et al. 2025, section A.2, AuxK)."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.encoding import Codes, combine, top_codes

REVIVED_AT_ONCE = 32
LIFT = 0.3


def unexplained_by_dead(
    dictionary: Dictionary, dead: Tensor, features: Tensor, error: Tensor, atoms: Tensor, half: bool
) -> Tensor:
    """Squared error that the strongest dead concepts leave of what the living ones leave, a scalar.

    Parameters
    ----------
    dead
        Numbers of the dead concepts, int64 [n], at least one.
    features
        What the encoder reads, [N, f].
    error
        What the living concepts leave unexplained, [N, d].
    atoms
        D [K, d].
    half
        See `top_codes`.
    """
    encoder = dictionary.encoder
    found = top_codes(features, encoder.weight[dead], encoder.bias[dead], min(len(dead), REVIVED_AT_ONCE), half)
    return (error - combine(Codes(dead[found.indices], found.values), atoms)).square().mean()


@torch.no_grad()
def lift(dictionary: Dictionary, dead: Tensor, level: Tensor, pace: Tensor) -> None:
    """Raise the bias of dead concepts until they are chosen.

    AuxK points them at what is unexplained, but gives no gradient to a concept that no token activates. Lifted concepts
    raise the level that the next must reach, so the level is the lowest there was: otherwise they drive each other up.

    Parameters
    ----------
    dead
        bool [K].
    level
        How strongly a concept had to answer to be chosen when that was easiest, a scalar.
    pace
        The learning rate's share of its peak times the unexplained share of variance: where nothing is left to explain,
        a dead concept is not missing.
    """
    dictionary.encoder.bias += LIFT * pace * level * dead
