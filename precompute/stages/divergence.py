"""Every pair of a real and a drawn image: how far apart they are, and whether the drawn one is a copy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from scipy import sparse

from engine.blindspots.divergence import Divergence, memorisation_candidates, pair_divergence
from engine.files import write_arrays

TABLE = "divergence.npz"


class Pairs(NamedTuple):
    """Arrays over the paired images of one model, in their order."""

    rows: np.ndarray
    """int64 `[pairs]` position of the drawn image within its source."""
    l2: np.ndarray
    """float64 `[pairs]`"""
    mean_delta: np.ndarray
    """float64 `[pairs]`"""
    nearest: np.ndarray
    """int64 `[pairs]` position of the most similar real image."""
    similarity: np.ndarray
    """float32 `[pairs]` its cosine."""
    p: np.ndarray
    """float64 `[pairs]` share of the real images that have a real neighbour at least as similar."""

    @property
    def divergence(self) -> Divergence:
        """The part that comes from concepts."""
        return Divergence(self.l2, self.mean_delta)


def measure_pairs(
    energies: tuple[sparse.csr_matrix, sparse.csr_matrix],
    embeddings: tuple[np.ndarray, np.ndarray],
    partner: np.ndarray,
    live: np.ndarray,
    temperature: float,
    folder: Path,
) -> dict[str, int]:
    """Measure all pairs of one model and keep them in the stage's folder; an unpaired model has none.

    Args:
        energies: of the real and the model's images, `[images, concepts]`.
        embeddings: of both, unit vectors `[images, dim]`.
        partner: per image of the model the position of its real one, or -1.
        live: the concepts that count, bool `[concepts]`.
        temperature: T of mean_delta.
        folder: the stage's folder.
    """
    rows = np.flatnonzero(partner >= 0)
    own = partner[rows]
    found = pair_divergence(*energies, own, rows, live=live, temperature=temperature)
    nearest, similarity = nearest_real(embeddings[0], embeddings[1][rows])
    p = np.ones(len(rows))
    if len(embeddings[0]) > 1:
        natural = nearest_other(embeddings[0])
        judged = memorisation_candidates(found.l2, nearest, similarity, own, natural, count=len(rows))
        p[judged.pairs] = judged.p
    write_arrays(folder / TABLE, **Pairs(rows, *found, nearest, similarity, p)._asdict())
    return {"pairs": len(rows)}


def read_pairs(folder: Path) -> Pairs:
    """Read what `measure_pairs` kept."""
    with np.load(folder / TABLE) as stored:
        return Pairs(**stored)


def nearest_real(real: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar real image of each drawn one, with its cosine; both are unit vectors."""
    similarity, nearest = _index(real).search(np.ascontiguousarray(drawn, np.float32), 1)
    return nearest[:, 0], np.clip(similarity[:, 0], -1, 1)


def nearest_other(real: np.ndarray) -> np.ndarray:
    """float32 `[images]` cosine of each real image to its nearest other one, a duplicate included."""
    found, positions = _index(real).search(np.ascontiguousarray(real, np.float32), 2)
    # Of duplicates, FAISS may name the other one first: then the first is the neighbour.
    return np.clip(np.where(positions[:, 0] == np.arange(len(real)), found[:, 1], found[:, 0]), -1, 1)


def _index(vectors: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index
