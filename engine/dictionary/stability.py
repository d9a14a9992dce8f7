"""Stability: how alike the atoms are that training finds from different seeds (Fel et al. 2025, arXiv 2502.12892).

The atoms of two dictionaries are matched one to one so that the sum of their cosines is largest (the Hungarian method):

    stability(D, D') = max over permutations P of (1 / K) sum_i cos(D_i, D'_P(i))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from engine.errors import BlindspotError

DENSE = 2048
"""Up to this many atoms all K x K pairs may be matched."""
RIVALS = 32
"""Beyond that, only an atom's most alike ones of the other dictionary, in both directions."""
BLOCK = 1024
"""Atoms compared with all others at once."""
PAIRS = 32_768
"""Pairs of atoms compared at once."""


class Stability(NamedTuple):
    """How well dictionaries agree."""

    concept: Tensor
    """Cosine of each atom of the first dictionary to its match, mean over the other dictionaries, float32 [K]."""
    pairs: Tensor
    """Mean matched cosine of every two dictionaries, float64 [S, S], 1 on the diagonal."""

    @property
    def mean(self) -> float:
        """Mean over all pairs of dictionaries."""
        rows, columns = torch.triu_indices(*self.pairs.shape, offset=1)
        return float(self.pairs[rows, columns].mean())


def stability(atoms: Sequence[Tensor]) -> Stability:
    """Match the atoms of every two dictionaries and compare them.

    Codes are not negative, so an atom and its opposite are different concepts: the cosine keeps its sign.

    Parameters
    ----------
    atoms
        Two or more dictionaries [K, d], trained alike but for the seed. With more than 2,048 atoms each may only be
        matched with its 32 most alike ones (or its namesake): the result is then a lower bound, in practice the same.

    Raises
    ------
    BlindspotError
        When there are fewer than two, or their shapes differ.
    """
    shapes = {tuple(one.shape) for one in atoms}
    if len(atoms) < 2 or len(shapes) > 1:
        raise BlindspotError(
            f"Stability compares two or more dictionaries of one shape, not {len(atoms)} of "
            f"{len(shapes)}; train the same dictionary with other seeds."
        )
    units = [F.normalize(one.detach().float().cpu(), dim=-1) for one in atoms]
    pairs = torch.eye(len(units), dtype=torch.float64)
    concept = torch.zeros(len(units[0]))
    for i, j in combinations(range(len(units)), 2):
        cosine = (units[i] * units[j][match(units[i], units[j])]).sum(dim=-1)
        pairs[i, j] = pairs[j, i] = cosine.double().mean()
        if i == 0:
            concept += cosine / (len(units) - 1)
    return Stability(concept, pairs)


def match(a: Tensor, b: Tensor, dense: int = DENSE) -> Tensor:
    """The permutation P, int64 [K], for which the sum of <a_i, b_P(i)> is largest.

    Parameters
    ----------
    a, b
        Unit atoms [K, d].
    dense
        Largest K for which all pairs are considered.
    """
    if len(a) <= dense:
        return torch.from_numpy(linear_sum_assignment((a @ b.T).numpy(), maximize=True)[1])
    rows, columns = _rivals(a, b)
    cosine = [(a[pairs[:, 0]] * b[pairs[:, 1]]).sum(dim=-1) for pairs in torch.stack([rows, columns], 1).split(PAIRS)]
    cost = 2 - torch.cat(cosine).double()
    graph = csr_matrix((cost.numpy(), (rows.numpy(), columns.numpy())), shape=(len(a), len(a)))
    return torch.from_numpy(min_weight_full_bipartite_matching(graph)[1].astype(np.int64))


def _rivals(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (row, column) worth considering: the most alike ones, and i with i so that a full matching exists."""
    own = torch.arange(len(a))
    forward, backward = _most_alike(a, b), _most_alike(b, a)
    rows = torch.cat([own.repeat_interleave(forward.shape[1]), backward.flatten(), own])
    columns = torch.cat([forward.flatten(), own.repeat_interleave(backward.shape[1]), own])
    keys = torch.unique(rows * len(a) + columns)
    return keys // len(a), keys % len(a)


def _most_alike(a: Tensor, b: Tensor) -> Tensor:
    """For each row of a, the rows of b with the largest inner products, int64 [K, RIVALS]."""
    count = min(RIVALS, len(b))
    return torch.cat([(part @ b.T).topk(count, dim=-1).indices for part in a.split(BLOCK)])
