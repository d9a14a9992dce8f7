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
from engine.files import write_arrays, write_whole
from precompute.context import Context, RecipeStage
from precompute.runner import Progress
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


class CompositionStage(RecipeStage):
    """`composition/S`: the co-occurrences of a source; a model's beside those of the real images."""

    unit = "parts"

    def __init__(self, context: Context, source: str) -> None:
        others = (f"composition/{REAL}", f"energies/{REAL}", f"energies/{source}", f"pairing/{source}")
        after = (f"energies/{REAL}", f"encode/{REAL}") if source == REAL else others
        super().__init__(context, f"composition/{source}", after=after)
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `composition.npz`, and the real images' matrix or a model's changes."""
        context, real = self.context, codes_of(self.context, REAL)
        tokens = read_spec(context.folder(f"encode/{REAL}")).tokens
        if self.source == REAL:
            return compose_real(real, tokens, folder, progress)
        codes, index = (real, codes_of(context, self.source)), pairing_of(context, self.source).pair_index
        stage = context.folder(f"composition/{REAL}")
        return compose_model(self.source, codes, tokens, index, stage, folder, progress)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `changes` and the curves of every source."""
        folders = {name: context.folder(f"composition/{name}") for name in context.sources}
        writer.write_table("changes", pd.concat([read_changes(folders[name]) for name in context.recipe.models]))
        curves = [read_curves(folder) for folder in folders.values()]
        writer.write_arrays(COMPOSITION, {name: array for one in curves for name, array in one.items()})


def compose_real(codes: sparse.csr_matrix, tokens: int, folder: Path, progress: Progress) -> dict[str, int]:
    """Measure the real images, and one random half of them against the other.

    Parameters
    ----------
    codes : `[images * tokens, concepts]`.
    tokens : tokens per image.
    folder : the stage's folder.
    progress : called with the parts done.
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
    index: np.ndarray,
    real: Path,
    folder: Path,
    progress: Progress,
) -> dict[str, int]:
    """Measure one model's images against the real ones.

    Parameters
    ----------
    name : the model.
    codes : of the real and the model's images, `[images * tokens, concepts]`.
    tokens : tokens per image.
    index : per image of the model the position of its real one, or -1.
    real : folder of the real images' composition stage.
    folder : the stage's folder.
    progress : called with the parts done.
    """
    real_images, images = (side.shape[0] // tokens for side in codes)
    reality, shared = _matrix(real), read_curves(real)
    found = cooccurrence_matrix(codes[1])
    progress(1, PARTS)
    unique = unique_share(reality, found, shared["eps"], real_scale=real_images, model_scale=images)
    changed = changed_pairs(reality, found, CHANGED)
    paired = np.flatnonzero(index >= 0)
    evidence = change_evidence(changed, *codes, tokens, index[paired], paired)
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
    entries = 2 * len(found.sums) - int(np.count_nonzero(found.diagonal(found.sums)))
    curve = l0_curve(found, eps, images)
    stored = Composition(eps, curve, unique, reference, *spectrum, found.tokens, entries, images)
    write_arrays(folder / CURVES, **stored.stored(name))
    progress(PARTS, PARTS)
    return {"entries": entries}


def _matrix(folder: Path) -> Cooccurrence:
    with np.load(folder / MATRIX, allow_pickle=False) as stored:
        arrays = dict(stored)
    return Cooccurrence(int(arrays.pop("tokens")), **arrays)
