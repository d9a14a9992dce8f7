"""Token codes of paper size with heavy tails, as `precompute synthesize` makes them, for speed and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse

from engine.atlas.storage import CSR
from precompute.synthetic.codes import draw_codes
from precompute.synthetic.invention import Invention
from precompute.synthetic.world import PREFIX, Size

__all__ = ["PREFIX", "SPARSITY", "TOKENS", "heavy_codes", "load", "save"]

TOKENS, SPARSITY = 261, 5


def heavy_codes(
    images: int, concepts: int, seed: int, tokens: int = TOKENS, scattered: bool = False
) -> sparse.csr_matrix:
    """[images * tokens, concepts] float32 codes of float16 precision, at most SPARSITY a token.

    Parameters
    ----------
    seed : 0 for the real images, 1 and up for those of a model, of the same world and captions.
    scattered : concepts of an image have nothing in common, so that nearly every pair of codes is a new entry of Z^T Z
        and its spectrum is flat: the worst case for memory and Lanczos.
    """
    size = Size(concepts, max(images, 16), max(seed, 1), tokens, SPARSITY)
    invented = Invention(size, planted=0, seed=0)
    name = f"model-{seed}" if seed else "real"
    codes = invented.codes(name)
    if scattered:
        world, scenes = invented.world, invented.scenes(name)
        anything = np.zeros(scenes.palettes.shape, int)
        rng = np.random.default_rng([seed, images])
        palettes = world.order[world.draw(anything + 1, anything + len(world.starts) - 2, rng)]
        codes = draw_codes(world, replace(scenes, palettes=palettes), None, (seed, images))
    return CSR.concatenate(list(codes)).rows(0, images * tokens)


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
