"""Every pair of a real and a drawn image: how far apart they are, and whether the drawn one is a copy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pandas as pd

from engine.atlas.schema import REAL
from engine.atlas.tables import divergence_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.delta import ESTIMATORS
from engine.blindspots.divergence import Divergence, memorisation_p, pair_divergence
from engine.blindspots.rows import Rows
from engine.files import read_arrays, write_arrays
from precompute.runner import Context, Progress, Stage
from precompute.stages.corpus import first_images
from precompute.stages.encode import embeddings_of
from precompute.stages.energies import live_concepts, stored_energy
from precompute.stages.pairing import pair_numbers, pairing_of

TABLE = "divergence.npz"
AT_ONCE, FEW = 4096, 64
"""Images that are looked up at once, as FAISS does; fewer of them join those before: it would round them otherwise."""


class PairDistances(NamedTuple):
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


class DivergenceStage(Stage):
    """`divergence/M`: what every pair of a model's and a real image differs by."""

    unit = "models"

    def __init__(self, context: Context, model: str) -> None:
        delta = context.recipe.delta
        # Another estimator's temperature is in other units.
        self.temperature = delta.temperature if delta.estimator == "gap" else ESTIMATORS["gap"].temperature
        # All energies, because a concept that fires in any source counts.
        energies = (f"energies/{source}" for source in context.sources)
        after = (*energies, f"pairing/{model}", f"encode/{REAL}", f"encode/{model}")
        super().__init__(context, f"divergence/{model}", {"temperature": self.temperature}, after)
        self.model = model

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `divergence.npz`."""
        context, model = self.context, self.model
        energies = stored_energy(context, REAL), stored_energy(context, model)
        embeddings = embeddings_of(context, REAL, mapped=True), embeddings_of(context, model, mapped=True)
        pair_index, live = pairing_of(context, model).pair_index, live_concepts(context)
        found = measure_pairs(energies, embeddings, pair_index, live, self.temperature)
        write_arrays(folder / TABLE, **found._asdict())
        return {"pairs": len(found.rows)}

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `divergence`."""
        starts, pairs, rows = first_images(context), pair_numbers(context), []
        for name in context.recipe.models:
            found = PairDistances(**read_arrays(context.folder(f"divergence/{name}") / TABLE))
            pair_index = pairing_of(context, name).pair_index
            images = pairs[name][found.rows], starts[name] + found.rows, pair_index[found.rows]
            rows.append(divergence_table(name, *images, found.divergence, found.nearest, found.similarity, found.p))
        writer.write_table("divergence", pd.concat(rows))


def measure_pairs(
    energies: tuple[Rows, Rows],
    embeddings: tuple[np.ndarray, np.ndarray],
    pair_index: np.ndarray,
    live: np.ndarray,
    temperature: float,
) -> PairDistances:
    """Measure all pairs of one model; an unpaired model has none.

    Parameters
    ----------
    energies : of the real and the model's images, `[images, concepts]`.
    embeddings : of both, unit vectors `[images, dim]`.
    pair_index : per image of the model the position of its real one, or -1.
    live : the concepts that count, bool `[concepts]`.
    temperature : T of mean_delta.
    """
    rows = np.flatnonzero(pair_index >= 0)
    own = pair_index[rows]
    found = pair_divergence(*energies, own, rows, live=live, temperature=temperature)
    nearest, similarity = nearest_real(embeddings[0], embeddings[1], rows)
    p = np.ones(len(rows))
    if len(embeddings[0]) > 1:
        p = memorisation_p(similarity, nearest_other(embeddings[0]))
    return PairDistances(rows, *found, nearest, similarity, p)


def nearest_real(real: np.ndarray, drawn: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar real image of some drawn ones, with its cosine; both are unit vectors `[images, dim]`."""
    similarity, nearest = _search(real, drawn, rows, 1)
    return nearest[:, 0], np.clip(similarity[:, 0], -1, 1)


def nearest_other(real: np.ndarray) -> np.ndarray:
    """float32 `[images]` cosine of each real image to its nearest other one, a duplicate included."""
    found, positions = _search(real, real, np.arange(len(real)), 2)
    # Of duplicates, FAISS may name the other one first: then the first is the neighbour.
    return np.clip(np.where(positions[:, 0] == np.arange(len(real)), found[:, 1], found[:, 0]), -1, 1)


def _search(vectors: np.ndarray, asked: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions `[rows, count]` of the vectors nearest to some rows of `asked`; either may lie on disk."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + AT_ONCE], np.float32))
    cosines, positions = np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.int64)
    ends = [*range(AT_ONCE, len(rows) - FEW, AT_ONCE), len(rows)]
    for start, end in pairwise([0, *ends]):
        part = np.ascontiguousarray(asked[rows[start:end]], np.float32)
        cosines[start:end], positions[start:end] = index.search(part, count)
    return cosines, positions
