"""How the concepts that occur together differ between real and drawn images: what is new, and what changed most.

`l0_curve` and `unique_share` count the entries of Z^T Z ("Conceptual Blindspots in Generative Image Models", sections
D.5 and H). Pairs are ranked by the change of their cosine c_jk = (Z^T Z)_jk / sqrt((Z^T Z)_jj (Z^T Z)_kk): a model that
merely weakens both concepts by a factor leaves it as it is. Tokens of an image depend on each other, so significance is
judged on images: y_i = sum over the image's tokens of z_tj z_tk is one number per image, and its gap is tested like
that of a concept's energy, paired where images are paired.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

from engine.blindspots.cooccurrence import Cooccurrence
from engine.blindspots.significance import active_degrees, gap_p, measure_gap
from engine.errors import BlindspotError


class Changes(NamedTuple):
    """Pairs of concepts, largest change of cosine first."""

    first: np.ndarray
    """[n] int32 the smaller concept."""
    second: np.ndarray
    """[n] int32 the larger concept."""
    real: np.ndarray
    """[n] cosine in real images, in [0, 1]."""
    model: np.ndarray
    """[n] cosine in the model's images."""
    real_tokens: np.ndarray
    """[n] int32 real tokens on which both fire."""
    model_tokens: np.ndarray
    """[n] int32 tokens of the model's images on which both fire."""
    candidates: int
    """Pairs that were frequent enough to be ranked; what a correction for many tests divides by."""

    @property
    def change(self) -> np.ndarray:
        """[n] cosine in the model's images minus in real ones."""
        return self.model - self.real


class ChangeEvidence(NamedTuple):
    """Image-level evidence for some pairs."""

    real_images: np.ndarray
    """[n] int64 real images with a token on which both fire."""
    model_images: np.ndarray
    """[n] int64 of the model's images."""
    gap: np.ndarray
    """[n] mean over images of y, model minus real; units of code squared."""
    se: np.ndarray
    """[n] its standard error."""
    p: np.ndarray
    """[n] two-sided normal p-value, not corrected."""
    corrected: np.ndarray
    """[n] p times the number of candidates, at most 1 (Bonferroni: the pairs were chosen for their change)."""


def l0_curve(composition: Cooccurrence, eps: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """How many entries of Z^T Z / scale exceed each threshold (the L0 norm at eps of section H).

    Parameters
    ----------
    eps : [n] thresholds, rising, not negative.
    scale : the number of images, so that sources of different size can share an axis.

    Returns
    -------
    ndarray
        [n] int64 entries of the whole symmetric matrix, its diagonal included.
    """
    off = _exceed(composition.sums, eps, scale)
    return 2 * off - _exceed(composition.diagonal(composition.sums), eps, scale)


def unique_share(
    real: Cooccurrence, model: Cooccurrence, eps: np.ndarray, *, real_scale: float = 1.0, model_scale: float = 1.0
) -> np.ndarray:
    """Share of a model's entries above eps that the real matrix does not have above eps; nan where the model has none.

    Finite samples make some pairs look unique: one real half against the other says how many.

    Parameters
    ----------
    real, model : over the same dictionary.
    eps : [n] thresholds, rising, not negative.
    real_scale, model_scale : images of each.

    Raises
    ------
    BlindspotError
        If the dictionaries differ.
    """
    there = aligned(model, real, real.sums) / real_scale
    common = np.minimum(model.sums / model_scale, there)
    both = 2 * _exceed(common, eps) - _exceed(model.diagonal(common), eps)
    entries = l0_curve(model, eps, model_scale)
    return np.divide(entries - both, entries, out=np.full(len(eps), np.nan), where=entries > 0)


def aligned(at: Cooccurrence, other: Cooccurrence, values: np.ndarray) -> np.ndarray:
    """[entries of `at`] the other composition's `values` at the places of `at`, 0 where it has no entry."""
    if at.concepts != other.concepts:
        raise BlindspotError(
            f"Compositions of {at.concepts} and {other.concepts} concepts cannot be compared: use one dictionary."
        )
    found = np.zeros(len(at.indices), values.dtype)
    _align(at.indptr, at.indices, other.indptr, other.indices, values, found)
    return found


def _exceed(values: np.ndarray, eps: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """[n] how many values / scale are above each threshold."""
    below = np.searchsorted(np.asarray(eps, np.float64) * scale, values, side="left")
    return np.cumsum(np.bincount(below, minlength=len(eps) + 1)[:0:-1])[::-1]


def changed_pairs(real: Cooccurrence, model: Cooccurrence, count: int, *, least: int = 100) -> Changes:
    """The `count` pairs of distinct concepts whose cosine changed most; of equal changes the smaller pair first.

    Parameters
    ----------
    real, model : over the same dictionary.
    count : pairs to return; fewer where fewer qualify.
    least : tokens that a pair must share in at least one source. Rarer pairs change by chance.

    Raises
    ------
    BlindspotError
        If the dictionaries differ.
    """
    scales = [_inverse_root(side.diagonal(side.sums)) for side in (real, model)]
    parts = []
    for own, other, flip in ((real, model, False), (model, real, True)):
        other_counts = aligned(own, other, other.counts)
        keep = own.counts >= least if not flip else (own.counts >= least) & (other_counts < least)
        rows, columns = own.rows[keep], own.indices[keep]
        apart = rows != columns
        rows, columns = rows[apart], columns[apart]
        sums = [own.sums[keep][apart], aligned(own, other, other.sums)[keep][apart]]
        counts = [own.counts[keep][apart], other_counts[keep][apart]]
        if flip:
            sums, counts = sums[::-1], counts[::-1]
        parts.append((rows, columns, *sums, *counts))
    rows, columns, *sums, real_tokens, model_tokens = (np.concatenate(part) for part in zip(*parts, strict=True))
    before, after = (value * scale[rows] * scale[columns] for value, scale in zip(sums, scales, strict=True))
    order = np.lexsort((columns, rows, -np.abs(after - before)))[:count]
    tokens = real_tokens[order], model_tokens[order]
    return Changes(rows[order], columns[order], before[order], after[order], *tokens, candidates=len(rows))


def change_evidence(
    changes: Changes,
    real: sparse.csr_matrix,
    model: sparse.csr_matrix,
    tokens: int,
    real_rows: np.ndarray,
    model_rows: np.ndarray,
) -> ChangeEvidence:
    """Test the given pairs on images.

    Parameters
    ----------
    changes : the pairs.
    real, model : [images * tokens, K] token codes.
    tokens : tokens per image.
    real_rows, model_rows : [pairs] images that belong to the same pair; empty when unpaired.
    """
    before, after = (_image_products(codes, changes.first, changes.second, tokens) for codes in (real, model))
    gap = measure_gap(before, after, real_rows, model_rows)
    real_images, model_images = (np.bincount(side.indices, minlength=len(gap.gap)) for side in (before, after))
    images = min(before.shape[0], after.shape[0])
    degrees = np.minimum(max(images - 1, 1), active_degrees(real_images, model_images))
    p = gap_p(gap.gap, gap.se, images, degrees)
    return ChangeEvidence(real_images, model_images, gap.gap, gap.se, p, np.minimum(p * changes.candidates, 1.0))


def _image_products(codes: sparse.csr_matrix, first: np.ndarray, second: np.ndarray, tokens: int) -> sparse.csr_matrix:
    """[images, pairs] sum over an image's tokens of z_tj z_tk, zeros not stored."""
    columns = sparse.csc_matrix(codes, dtype=np.float64)
    products = columns[:, first].multiply(columns[:, second]).tocoo()
    shape = (codes.shape[0] // tokens, len(first))
    summed = sparse.coo_matrix((products.data, (products.row // tokens, products.col)), shape).tocsr()
    summed.eliminate_zeros()
    return summed


def _inverse_root(diagonal: np.ndarray) -> np.ndarray:
    return np.divide(1.0, np.sqrt(diagonal), out=np.zeros(len(diagonal)), where=diagonal > 0)


@numba.njit(cache=True)
def _align(indptr, indices, other_ptr, other_indices, values, found):  # pragma: no cover - compiled
    for row in range(len(indptr) - 1):
        place, last = other_ptr[row], other_ptr[row + 1]
        for entry in range(indptr[row], indptr[row + 1]):
            while place < last and other_indices[place] < indices[entry]:
                place += 1
            if place < last and other_indices[place] == indices[entry]:
                found[entry] = values[place]
