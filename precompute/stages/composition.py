"""Which concepts share tokens: per source the L0 curve and the spectrum, per model what reality lacks and what changed.

The stage of the real images also keeps their matrix and the thresholds, which those of the models start from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.analyses import Composition
from engine.atlas.schema import COMPOSITION, REAL
from engine.atlas.tables import changes_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.composition import change_evidence, changed_pairs, l0_curve, unique_share
from engine.blindspots.cooccurrence import Cooccurrence, cooccurrence_matrix, token_rows
from engine.blindspots.significance import split_halves
from engine.blindspots.spectrum import cooccurrence_spectrum
from engine.files import read_arrays, write_arrays, write_whole
from precompute.runner import Context, Progress, Stage
from precompute.stages.encode import read_spec
from precompute.stages.energies import codes_of
from precompute.stages.pairing import pairing_of

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


class CompositionStage(Stage):
    """`composition/S`: the co-occurrences of a source; a model's beside those of the real images."""

    unit = "parts"

    def __init__(self, context: Context, source: str) -> None:
        others = (f"composition/{REAL}", f"energies/{REAL}", f"energies/{source}", f"pairing/{source}")
        after = (f"energies/{REAL}", f"encode/{REAL}") if source == REAL else others
        super().__init__(context, f"composition/{source}", after=after)
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `composition.npz`, and the real images' matrix or a model's changes."""
        context, source, real = self.context, self.source, codes_of(self.context, REAL)
        tokens = read_spec(context.folder(f"encode/{REAL}")).tokens
        if source == REAL:
            matrix, found = compose_real(real, tokens, progress)
            write_arrays(folder / MATRIX, **matrix._asdict())
        else:
            reality, stage = real_composition(context), context.folder(f"composition/{REAL}")
            curves = Composition.of(read_arrays(stage / CURVES), REAL)
            pair_index = pairing_of(context, source).pair_index
            codes = real, codes_of(context, source)
            found, changes = compose_model(source, codes, tokens, pair_index, reality, curves, progress)
            write_whole(folder / CHANGES, lambda partial: changes.to_parquet(partial, index=False))
        write_arrays(folder / CURVES, **found.stored(source))
        progress(PARTS, PARTS)
        return {"entries": found.entries}

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `changes` and the curves of every source."""
        folders = {name: context.folder(f"composition/{name}") for name in context.sources}
        writer.write_table(
            "changes", pd.concat([pd.read_parquet(folders[name] / CHANGES) for name in context.recipe.models])
        )
        curves = [read_arrays(folder / CURVES) for folder in folders.values()]
        writer.write_arrays(COMPOSITION, {name: array for one in curves for name, array in one.items()})


def real_composition(context: Context) -> Cooccurrence:
    """The co-occurrence matrix of the real images."""
    arrays = read_arrays(context.folder(f"composition/{REAL}") / MATRIX)
    return Cooccurrence(int(arrays.pop("tokens")), **arrays)


def compose_real(codes: sparse.csr_matrix, tokens: int, progress: Progress) -> tuple[Cooccurrence, Composition]:
    """Measure the real images, and one random half of them against the other.

    Parameters
    ----------
    codes : `[images * tokens, concepts]`.
    tokens : tokens per image.
    """
    found = cooccurrence_matrix(codes)
    eps = thresholds(found, codes.shape[0] // tokens)
    progress(1, PARTS)
    reference = halves_unique(codes, tokens, eps)
    progress(2, PARTS)
    return found, _composition(found, codes, tokens, eps, np.zeros(len(eps)), reference)


def compose_model(
    name: str,
    codes: tuple[sparse.csr_matrix, sparse.csr_matrix],
    tokens: int,
    pair_index: np.ndarray,
    reality: Cooccurrence,
    real: Composition,
    progress: Progress,
) -> tuple[Composition, pd.DataFrame]:
    """Measure one model's images against the real ones; the table holds its rows of `changes.parquet`.

    Parameters
    ----------
    codes : of the real and the model's images, `[images * tokens, concepts]`.
    tokens : tokens per image.
    pair_index : per image of the model the position of its real one, or -1.
    reality, real : what `compose_real` returned.
    """
    found = cooccurrence_matrix(codes[1])
    progress(1, PARTS)
    images = codes[1].shape[0] // tokens
    unique = unique_share(reality, found, real.eps, real_scale=real.images, model_scale=images)
    changed = changed_pairs(reality, found, CHANGED)
    paired = np.flatnonzero(pair_index >= 0)
    evidence = change_evidence(changed, *codes, tokens, pair_index[paired], paired)
    progress(2, PARTS)
    made = _composition(found, codes[1], tokens, real.eps, unique, real.reference)
    return made, changes_table(name, changed, evidence)


def _composition(
    found: Cooccurrence,
    codes: sparse.csr_matrix,
    tokens: int,
    eps: np.ndarray,
    unique: np.ndarray,
    reference: np.ndarray,
) -> Composition:
    images = codes.shape[0] // tokens
    spectrum = cooccurrence_spectrum(codes, min(RANK, codes.shape[1]))
    entries = 2 * len(found.sums) - int(np.count_nonzero(found.diagonal(found.sums)))
    return Composition(eps, l0_curve(found, eps, images), unique, reference, *spectrum, found.tokens, entries, images)


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
