"""How alike the atoms of a dictionary are."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1024
"""Atoms compared with all others at once."""


class Coherence(NamedTuple):
    """For every atom, the other one that is most alike."""

    value: Tensor
    """Largest |cosine| to another atom, float32 [K] in [0, 1]; its maximum is the dictionary's mutual coherence."""
    nearest: Tensor
    """That other atom, int64 [K]."""


@torch.no_grad()
def coherence(atoms: Tensor) -> Coherence:
    """The largest |cosine| of each atom to another one; an atom of zeros is alike to none.

    Parameters
    ----------
    atoms
        [K, d] with K of at least 2. K x K cosines are formed block by block, so 32,000 atoms need 130 MB.
    """
    unit = F.normalize(atoms.float(), dim=-1)
    values, nearest = [], []
    for start in range(0, len(unit), BLOCK):
        alike = (unit[start : start + BLOCK] @ unit.T).abs_()
        rows = torch.arange(len(alike), device=unit.device)
        alike[rows, start + rows] = -1
        best = alike.max(dim=-1)
        values.append(best.values.clamp(0, 1))
        nearest.append(best.indices)
    return Coherence(torch.cat(values).cpu(), torch.cat(nearest).cpu())
