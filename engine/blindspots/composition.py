"""How the concepts that occur together differ between real and drawn images: what is new, and what changed most.

`l0_curve` and `unique_share` count the entries of Z^T Z ("Conceptual Blindspots in Generative Image Models", sections
D.5 and H). Pairs are ranked by the change of their cosine c_jk = (Z^T Z)_jk / sqrt((Z^T Z)_jj (Z^T Z)_kk): a model that
merely weakens both concepts by a factor leaves it as it is. Rows of Z are images or tokens; tokens of an image depend
on each other, so significance is judged on images: y_i, the sum over the image's rows of z_tj z_tk, is one number per
image, and its gap is tested like that of a concept's energy, paired where images are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from scipy import sparse

from engine.blindspots.cooccurrence import Cooccurrence
from engine.blindspots.rows import Rows, read_rows
from engine.blindspots.significance import active_degrees, gap_p, images_with, measure_gap
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
    """[n] int32 rows of the real Z (tokens or images) in which both fire."""
    model_tokens: np.ndarray
    """[n] int32 rows of the model's Z in which both fire."""
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
    entries = l0_curve(model, eps, model_scale)
    both = shared_entries(real, model, eps, real_scale=real_scale, model_scale=model_scale)
    return share_without(entries, both)


def shared_entries(
    real: Cooccurrence, model: Cooccurrence, eps: np.ndarray, *, real_scale: float = 1.0, model_scale: float = 1.0
) -> np.ndarray:
    """[n] int64 entries above each threshold in both matrices; parameters and errors as for `unique_share`."""
    there = aligned(model, real, real.sums) / real_scale
    common = np.minimum(model.sums / model_scale, there)
    return 2 * _exceed(common, eps) - _exceed(model.diagonal(common), eps)


def share_without(entries: np.ndarray, both: np.ndarray) -> np.ndarray:
    """[n] share of a model's entries that are not in both matrices; nan where it has none."""
    return np.divide(entries - both, entries, out=np.full(len(entries), np.nan), where=entries > 0)


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


def changed_pairs(
    real: Cooccurrence,
    model: Cooccurrence,
    count: int,
    *,
    least: int = 100,
    norms: tuple[np.ndarray, np.ndarray] | None = None,
) -> Changes:
    """The `count` pairs of distinct concepts whose cosine changed most; of equal changes the smaller pair first.

    Parameters
    ----------
    real, model : over the same dictionary.
    count : pairs to return; fewer where fewer qualify.
    least : rows that a pair must share in at least one source. Rarer pairs change by chance.
    norms : [K] diagonals of both matrices, for matrices of which some rows are left out.

    Raises
    ------
    BlindspotError
        If the dictionaries differ.
    """
    diagonals = norms or tuple(side.diagonal(side.sums) for side in (real, model))
    scales = [_inverse_root(diagonal) for diagonal in diagonals]
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


def strongest_changes(parts: Sequence[Changes], count: int) -> Changes:
    """The `count` pairs that changed most of what `changed_pairs` found in the parts of two matrices."""
    names = Changes._fields[:-1]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    size = np.abs(joined["model"] - joined["real"])
    order = np.lexsort((joined["second"], joined["first"], -size))[:count]
    candidates = sum(part.candidates for part in parts)
    return Changes(**{name: column[order] for name, column in joined.items()}, candidates=candidates)


def change_evidence(
    changes: Changes,
    real: Rows,
    model: Rows,
    tokens: int,
    real_rows: np.ndarray,
    model_rows: np.ndarray,
) -> ChangeEvidence:
    """Test the given pairs on images.

    Parameters
    ----------
    changes : the pairs.
    real, model : [images * tokens, K], the rows of Z.
    tokens : rows per image; 1 where Z has one row per image.
    real_rows, model_rows : [pairs] images that belong to the same pair; empty when unpaired.
    """
    sides = [PairProducts(codes, changes.first, changes.second, tokens) for codes in (real, model)]
    gap = measure_gap(sides[0], sides[1], real_rows, model_rows)
    real_images, model_images = (images_with(side) for side in sides)
    images = min(side.shape[0] for side in sides)
    degrees = np.minimum(max(images - 1, 1), active_degrees(real_images, model_images))
    p = gap_p(gap.gap, gap.se, images, degrees)
    return ChangeEvidence(real_images, model_images, gap.gap, gap.se, p, np.minimum(p * changes.candidates, 1.0))


class PairProducts:
    """[images, pairs] sum over an image's rows of z_tj z_tk, computed for the images that are asked for.

    Parameters
    ----------
    codes : [images * tokens, K].
    first, second : [pairs] concepts.
    tokens : rows per image.
    """

    def __init__(self, codes: Rows, first: np.ndarray, second: np.ndarray, tokens: int) -> None:
        self.codes, self.first, self.second, self.tokens = codes, first, second, tokens
        self.shape = codes.shape[0] // tokens, len(first)

    def rows(self, start: int = 0, stop: int | None = None) -> sparse.csr_matrix:
        """Images `start` to `stop`, zeros not stored."""
        stop = self.shape[0] if stop is None else stop
        block = read_rows(self.codes, start * self.tokens, stop * self.tokens)
        columns = sparse.csc_matrix(block, dtype=np.float64)
        found = columns[:, self.first].multiply(columns[:, self.second]).tocoo()
        shape = (stop - start, self.shape[1])
        summed = sparse.coo_matrix((found.data, (found.row // self.tokens, found.col)), shape).tocsr()
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
