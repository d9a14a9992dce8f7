"""Token codes of paper size with heavy tails, for the benchmarks of speed and memory.

How often concepts fire is lognormal with the spread of the authors' 32,000 RA-SAE concepts on ImageNet (deviation 0.98
of the logarithm of `nb_fire`, ../shared/reference/saediff_imagenet_concepts.json). An image has a palette of concepts,
its leading ones on many tokens, so that tokens of an image repeat concepts as real ones do. Palettes are random: nearly
every pair of codes is a new entry of Z^T Z and its spectrum is flat, which is the worst case for memory and Lanczos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

SPREAD = 0.98
TOKENS, PREFIX, SPARSITY = 261, 5, 5
PALETTE = 300
_CHUNK = 500


def heavy_codes(images: int, concepts: int, seed: int) -> sparse.csr_matrix:
    """[images * TOKENS, concepts] float32 codes of float16 precision, at most SPARSITY a token.

    The law of the concepts depends on `concepts` alone, so that sources of different seeds share it.
    """
    law = np.random.default_rng(concepts)
    edges = np.cumsum(np.exp(law.normal(0, SPREAD, concepts)))
    scale = np.exp(law.normal(0, 0.3, concepts))
    rng = np.random.default_rng([seed, images])
    parts = []
    for start in range(0, images, _CHUNK):
        count = min(_CHUNK, images - start)
        palette = np.searchsorted(edges, rng.random((count, PALETTE)) * edges[-1])
        slots = np.sort((PALETTE - SPARSITY) * rng.random((count, TOKENS, SPARSITY)) ** 2, axis=2).astype(int)
        slots += np.arange(SPARSITY)
        chosen = np.take_along_axis(palette[:, None, :], slots.reshape(count, 1, -1), axis=2).ravel()
        values = (scale[chosen] * rng.gamma(2, 0.3, len(chosen))).astype(np.float16).astype(np.float32)
        indptr = np.arange(0, len(chosen) + 1, SPARSITY)
        part = sparse.csr_matrix((values, chosen.astype(np.int32), indptr), (count * TOKENS, concepts))
        part.sum_duplicates()
        parts.append(part)
    return sparse.vstack(parts, format="csr")


def save(codes: sparse.csr_matrix, folder: Path) -> int:
    """Write a matrix as three .npy files, as an atlas does; returns their bytes."""
    folder.mkdir(parents=True)
    for name, array in (("indptr", codes.indptr), ("indices", codes.indices), ("values", codes.data)):
        np.save(folder / f"{name}.npy", array)
    return sum(file.stat().st_size for file in folder.iterdir())


def load(folder: Path, concepts: int) -> sparse.csr_matrix:
    """Read what `save` wrote, memory-mapped."""
    indptr, indices, values = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices", "values")
    )
    return sparse.csr_matrix((values, indices, indptr), (len(indptr) - 1, concepts), copy=False)
