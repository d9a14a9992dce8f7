"""Which concepts share tokens: per source the L0 curve and the spectrum, per model what reality lacks and what changed.

The stage of the real images also keeps their matrix and the thresholds, which those of the models start from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.analyses import Composition
from engine.atlas.schema import REAL
from engine.atlas.tables import changes_table
from engine.blindspots.composition import change_evidence, changed_pairs, l0_curve, unique_share
from engine.blindspots.cooccurrence import Cooccurrence, cooccurrence_matrix, token_rows
from engine.blindspots.significance import split_halves
from engine.blindspots.spectrum import cooccurrence_spectrum
from engine.files import write_arrays, write_whole
from precompute.plan import Progress

CURVES, MATRIX, CHANGES = "composition.npz", "matrix.npz", "changes.parquet"
THRESHOLDS = 80
RANK = 100
"""Eigenpairs kept."""
CHANGED = 300
"""Changed pairs of concepts kept per model."""
SEED = 0
"""Of the halves of the real images."""
PARTS = 3
"""What the progress counts: matrix, comparison, spectrum."""


def compose_real(codes: sparse.csr_matrix, tokens: int, folder: Path, progress: Progress) -> dict[str, int]:
    """Measure the real images, and one random half of them against the other.

    Args:
        codes: `[images * tokens, concepts]`.
        tokens: tokens per image.
        folder: the stage's folder.
        progress: called with the parts done.
    """
    images = codes.shape[0] // tokens
    found = cooccurrence_matrix(codes)
    eps = thresholds(found, images)
    write_arrays(folder / MATRIX, **found._asdict())
    progress(1, PARTS)
    reference = halves_unique(codes, tokens, eps)
    progress(2, PARTS)
    return _keep(REAL, found, codes, images, eps, np.zeros(len(eps)), reference, folder, progress)


def compose_model(
    name: str,
    codes: tuple[sparse.csr_matrix, sparse.csr_matrix],
    tokens: int,
    partner: np.ndarray,
    real: Path,
    folder: Path,
    progress: Progress,
) -> dict[str, int]:
    """Measure one model's images against the real ones.

    Args:
        name: the model.
        codes: of the real and the model's images, `[images * tokens, concepts]`.
        tokens: tokens per image.
        partner: per image of the model the position of its real one, or -1.
        real: folder of the real images' composition stage.
        folder: the stage's folder.
        progress: called with the parts done.
    """
    real_images, images = (side.shape[0] // tokens for side in codes)
    reality, shared = _matrix(real), read_curves(real)
    found = cooccurrence_matrix(codes[1])
    progress(1, PARTS)
    unique = unique_share(reality, found, shared["eps"], real_scale=real_images, model_scale=images)
    changed = changed_pairs(reality, found, CHANGED)
    paired = np.flatnonzero(partner >= 0)
    evidence = change_evidence(changed, *codes, tokens, partner[paired], paired)
    table = changes_table(name, changed, evidence)
    write_whole(folder / CHANGES, lambda partial: table.to_parquet(partial, index=False))
    progress(2, PARTS)
    return _keep(name, found, codes[1], images, shared["eps"], unique, shared["reference"], folder, progress)


def read_curves(folder: Path) -> dict[str, np.ndarray]:
    """One source's arrays of the atlas's `composition.npz`."""
    with np.load(folder / CURVES, allow_pickle=False) as stored:
        return dict(stored)


def read_changes(folder: Path) -> pd.DataFrame:
    """One model's rows of the atlas's `changes.parquet`."""
    return pd.read_parquet(folder / CHANGES)


def thresholds(real: Cooccurrence, images: int) -> np.ndarray:
    """[THRESHOLDS] from the weakest percent of the real entries per image to twice the strongest, equal ratios."""
    entries = real.sums / images if len(real.sums) else np.ones(1)
    return np.geomspace(np.quantile(entries, 0.01), 2 * entries.max(), THRESHOLDS)


def halves_unique(codes: sparse.csr_matrix, tokens: int, eps: np.ndarray) -> np.ndarray:
    """[n] unique share of one random half of the images against the other; nan for fewer than four images."""
    images = codes.shape[0] // tokens
    if images < 4:
        return np.full(len(eps), np.nan)
    halves = split_halves(images, np.random.default_rng(SEED))
    first, second = (cooccurrence_matrix(codes[token_rows(half, tokens)]) for half in halves)
    return unique_share(first, second, eps, real_scale=images // 2, model_scale=images // 2)


def _keep(
    name: str,
    found: Cooccurrence,
    codes: sparse.csr_matrix,
    images: int,
    eps: np.ndarray,
    unique: np.ndarray,
    reference: np.ndarray,
    folder: Path,
    progress: Progress,
) -> dict[str, int]:
    spectrum = cooccurrence_spectrum(codes, min(RANK, codes.shape[1]))
    entries = 2 * len(found.sums) - np.count_nonzero(found.diagonal(found.sums))
    curve = l0_curve(found, eps, images)
    stored = Composition(eps, curve, unique, reference, *spectrum, found.tokens, entries, images)
    write_arrays(folder / CURVES, **stored.stored(name))
    progress(PARTS, PARTS)
    return {"entries": int(entries)}


def _matrix(folder: Path) -> Cooccurrence:
    with np.load(folder / MATRIX, allow_pickle=False) as stored:
        return Cooccurrence(**{name: value if value.ndim else int(value) for name, value in stored.items()})
