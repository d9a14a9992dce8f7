"""Which concepts occur together: per source L0 curve and spectrum, per model what reality lacks and what changed.

Z has a row per image, its energies, or a row per token, its codes (`composition.rows`). Codes and matrices are read and
summed in blocks, so that memory does not grow with the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.analyses import Composition
from engine.atlas.schema import COMPOSITION, REAL
from engine.atlas.tables import changes_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.composition import (
    change_evidence,
    changed_pairs,
    l0_curve,
    share_without,
    shared_entries,
    strongest_changes,
)
from engine.blindspots.cooccurrence import Cooccurrence, cooccurrence_blocks, squared_norms, token_rows
from engine.blindspots.rows import BLOCK, Rows, take_rows
from engine.blindspots.significance import split_halves
from engine.blindspots.spectrum import cooccurrence_spectrum
from engine.files import read_arrays, write_arrays, write_whole
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.encode import read_spec
from precompute.stages.energies import stored_codes, stored_energy
from precompute.stages.pairing import pairing_of

CURVES, CHANGES = "composition.npz", "changes.parquet"
THRESHOLDS = 80
WEAKEST = 0.01
"""Quantile of the real entries that the thresholds start from."""
RANK = 100
"""Eigenpairs kept."""
CHANGED = 300
"""Changed pairs of concepts kept per model."""
LEAST_TOKENS = 100
"""Tokens that a changed pair shares in one source at least."""
SEED = 0
"""Of the halves of the real images."""
PARTS = 3
"""What the progress counts: matrix, comparison, spectrum."""
BIN = 44
"""Bits of a float64 that do not tell its bin, where entries are too many to be sorted."""


class CompositionStage(Stage):
    """`composition/S`: the co-occurrences of a source; a model's beside those of the real images."""

    unit = "parts"

    def __init__(self, context: Context, source: str) -> None:
        others = (f"composition/{REAL}", f"energies/{REAL}", f"energies/{source}", f"pairing/{source}")
        after = (f"energies/{REAL}", f"encode/{REAL}") if source == REAL else others
        super().__init__(context, f"composition/{source}", fingerprint_fields(context.recipe.composition), after)
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `composition.npz`, and a model's changes."""
        context, source, real = self.context, self.source, self._rows(REAL)
        tokens = self._tokens()
        if source == REAL:
            found = compose_real(real, tokens, progress)
        else:
            curves = Composition.of(read_arrays(context.folder(f"composition/{REAL}") / CURVES), REAL)
            pair_index = pairing_of(context, source).pair_index
            found, changes = compose_model(source, (real, self._rows(source)), tokens, pair_index, curves, progress)
            write_whole(folder / CHANGES, lambda partial: changes.to_parquet(partial, index=False))
        write_arrays(folder / CURVES, **found.stored(source))
        progress(PARTS, PARTS)
        return {"entries": found.entries}

    def _rows(self, source: str) -> Rows:
        """The rows of Z of a source."""
        stored = stored_energy if self.context.recipe.composition.rows == "image" else stored_codes
        return stored(self.context, source)

    def _tokens(self) -> int:
        """Rows of Z per image."""
        if self.context.recipe.composition.rows == "image":
            return 1
        return read_spec(self.context.folder(f"encode/{REAL}")).tokens

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `changes` and the curves of every source."""
        folders = {name: context.folder(f"composition/{name}") for name in context.sources}
        writer.write_table(
            "changes", pd.concat([pd.read_parquet(folders[name] / CHANGES) for name in context.recipe.models])
        )
        curves = [read_arrays(folder / CURVES) for folder in folders.values()]
        writer.write_arrays(COMPOSITION, {name: array for one in curves for name, array in one.items()})


def compose_real(codes: Rows, tokens: int, progress: Progress) -> Composition:
    """Measure the real images, and one random half of them against the other.

    Parameters
    ----------
    codes : `[images * tokens, concepts]`, the rows of Z.
    tokens : rows per image: 1 where Z has one row per image.
    """
    eps = thresholds(codes, tokens)
    progress(1, PARTS)
    reference = halves_unique(codes, tokens, eps)
    progress(2, PARTS)
    images = codes.shape[0] // tokens
    l0, entries = np.zeros(len(eps), np.int64), 0
    for part in _blocks(codes, tokens):
        l0 += l0_curve(part, eps, images)
        entries += _entries(part)
    return _composition(codes, tokens, eps, np.zeros(len(eps)), reference, l0, entries)


def compose_model(
    name: str,
    codes: tuple[Rows, Rows],
    tokens: int,
    pair_index: np.ndarray,
    real: Composition,
    progress: Progress,
) -> tuple[Composition, pd.DataFrame]:
    """Measure one model's images against the real ones; the table holds its rows of `changes.parquet`.

    Parameters
    ----------
    codes : of the real and the model's images, `[images * tokens, concepts]`, the rows of Z.
    tokens : rows per image.
    pair_index : per image of the model the position of its real one, or -1.
    real : what `compose_real` returned.
    """
    images = codes[1].shape[0] // tokens
    least = least_rows(min(images, real.images)) if tokens == 1 else LEAST_TOKENS
    norms = squared_norms(codes[0], BLOCK * tokens), squared_norms(codes[1], BLOCK * tokens)
    l0, both, entries, parts = np.zeros(len(real.eps), np.int64), np.zeros(len(real.eps), np.int64), 0, []
    for reality, found in zip(*(_blocks(side, tokens) for side in codes), strict=True):
        l0 += l0_curve(found, real.eps, images)
        both += shared_entries(reality, found, real.eps, real_scale=real.images, model_scale=images)
        entries += _entries(found)
        parts.append(changed_pairs(reality, found, CHANGED, least=least, norms=norms))
    progress(1, PARTS)
    changed = strongest_changes(parts, CHANGED)
    paired = np.flatnonzero(pair_index >= 0)
    evidence = change_evidence(changed, *codes, tokens, pair_index[paired], paired)
    progress(2, PARTS)
    made = _composition(codes[1], tokens, real.eps, share_without(l0, both), real.reference, l0, entries)
    return made, changes_table(name, changed, evidence)


def least_rows(images: int) -> int:
    """Images that a changed pair shares in one source at least: one in a hundred, 10 to 100."""
    return min(100, max(10, images // 100))


def _composition(
    codes: Rows, tokens: int, eps: np.ndarray, unique: np.ndarray, reference: np.ndarray, l0: np.ndarray, entries: int
) -> Composition:
    rows, concepts = codes.shape
    spectrum = cooccurrence_spectrum(codes, min(RANK, concepts), BLOCK * tokens)
    return Composition(eps, l0, unique, reference, *spectrum, rows, entries, rows // tokens)


def _blocks(codes: Rows, tokens: int) -> Iterator[Cooccurrence]:
    return cooccurrence_blocks(codes, BLOCK * tokens)


def _entries(found: Cooccurrence) -> int:
    """Entries of the symmetric matrix."""
    return 2 * len(found.sums) - int(np.count_nonzero(found.diagonal(found.sums)))


def thresholds(codes: Rows, tokens: int) -> np.ndarray:
    """[THRESHOLDS] from the weakest percent of the real entries per image to twice the strongest, equal ratios.

    Entries are counted by the leading bits of their size first, and those around the quantile sorted then, so that they
    are never held all at once.
    """
    counts, largest = np.zeros(1 << (64 - BIN), np.int64), 0.0
    for part in _blocks(codes, tokens):
        counts += np.bincount(part.sums.view(np.int64) >> BIN, minlength=len(counts))
        largest = max(largest, part.sums.max(initial=0.0))
    if not counts.any():
        return np.geomspace(1.0, 2.0, THRESHOLDS)
    before = np.cumsum(counts)
    rank = WEAKEST * (before[-1] - 1)
    low, high = (int(np.searchsorted(before, int(place), side="right")) for place in (rank, np.ceil(rank)))
    near = [part.sums[(part.sums.view(np.int64) >> BIN >= low) & (part.sums.view(np.int64) >> BIN <= high)]
            for part in _blocks(codes, tokens)]  # fmt: skip
    ordered = np.sort(np.concatenate(near))
    first = int(rank) - int(before[low] - counts[low])
    images = codes.shape[0] // tokens
    around = ordered[[first, min(first + 1, len(ordered) - 1)]] / images
    return np.geomspace(np.quantile(around, rank - int(rank)), 2 * (largest / images), THRESHOLDS)


def halves_unique(codes: Rows, tokens: int, eps: np.ndarray) -> np.ndarray:
    """[n] unique share of one random half of the images against the other; nan for fewer than four images."""
    images = codes.shape[0] // tokens
    if images < 4:
        return np.full(len(eps), np.nan)
    halves = [_Images(codes, half, tokens) for half in split_halves(images, np.random.default_rng(SEED))]
    scale, l0, both = images // 2, np.zeros(len(eps), np.int64), np.zeros(len(eps), np.int64)
    for first, second in zip(*(_blocks(half, tokens) for half in halves), strict=True):
        l0 += l0_curve(second, eps, scale)
        both += shared_entries(first, second, eps, real_scale=scale, model_scale=scale)
    return share_without(l0, both)


class _Images:
    """The rows of Z of some images."""

    def __init__(self, codes: Rows, images: np.ndarray, tokens: int) -> None:
        self.codes, self.images, self.tokens = codes, images, tokens
        self.shape = len(images) * tokens, codes.shape[1]

    def rows(self, start: int = 0, stop: int | None = None) -> sparse.csr_matrix:
        """Rows `start` to `stop`, which belong to whole images."""
        stop = self.shape[0] if stop is None else stop
        return take_rows(self.codes, token_rows(self.images[start // self.tokens : stop // self.tokens], self.tokens))
