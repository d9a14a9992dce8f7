"""The scalar metrics of every model, in encoder and concept space, beside those of one real half against the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from engine.atlas.schema import HALVES, REAL
from engine.atlas.storage import CSRFolder
from engine.atlas.writer import AtlasWriter
from engine.blindspots.metrics import Frechet, Manifold, frechet_distance, manifold_metrics
from engine.blindspots.significance import split_halves
from engine.files import read_json, write_json
from precompute.runner import Context, Progress, Stage
from precompute.stages.encode import embeddings_of
from precompute.stages.energies import stored_energy
from precompute.stages.pairing import pairing_of

TABLE = "metrics.json"
K = 5
"""Neighbour that the balls of precision, recall, density and coverage reach to."""
SEED = 0
"""Of the halves of the real images."""
MOST = 3_000
"""Images of each set that are compared in concept space, where the Frechet distance takes the singular values of an
images x images matrix: time grows with their cube."""
MOST_EMBEDDINGS = 20_000
"""Images of each set that are compared in encoder space, where precision and recall take every pair of them."""

Row = dict[str, Any]
Features = np.ndarray | sparse.csr_matrix | CSRFolder
"""[images, dim] of one space, dense or sparse, in memory or on disk."""


class MetricsStage(Stage):
    """`metrics/M`: a model's images against the real ones; `metrics/real`: one half of those against the other."""

    unit = "spaces"

    def __init__(self, context: Context, source: str) -> None:
        after = [f"{stage}/{one}" for one in dict.fromkeys((REAL, source)) for stage in ("energies", "encode")]
        after += [f"pairing/{source}"] if source != REAL else []
        super().__init__(context, f"metrics/{source}", after=after)
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write `metrics.json`."""
        real = self._features(REAL)
        if self.source == REAL:
            rows = compare_halves(real, progress)
        else:
            pair_index = pairing_of(self.context, self.source).pair_index
            rows = compare_model(self.source, real, self._features(self.source), pair_index, progress)
        write_json(folder / TABLE, rows)
        return {"rows": len(rows)}

    def _features(self, source: str) -> dict[str, Features]:
        return {"encoder": embeddings_of(self.context, source), "concepts": stored_energy(self.context, source)}

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `metrics`."""
        rows = [row for name in context.sources for row in read_json(context.folder(f"metrics/{name}") / TABLE)]
        writer.write_table("metrics", pd.DataFrame(rows))


def compare_halves(real: Mapping[str, Features], progress: Progress) -> list[Row]:
    """Measure one random half of the real images against the other, in every space.

    Parameters
    ----------
    real : per space the features of the real images, `[images, dim]`, dense or sparse.
    """
    rows = []
    for space, features in real.items():
        first, second = real_halves(features.shape[0], most_of(features))
        row = compare(HALVES, space, features[first], features[second])
        rows.append(row | {"fid_half": row["fid"]})
        progress(len(rows), len(real))
    return rows


def compare_model(
    name: str,
    real: Mapping[str, Features],
    model: Mapping[str, Features],
    pair_index: np.ndarray,
    progress: Progress,
) -> list[Row]:
    """Measure a model against all real images, and its Frechet distance also at the size of a real half.

    Parameters
    ----------
    real, model : per space the features of the images, `[images, dim]`, dense or sparse.
    pair_index : per image of the model the position of its real one, or -1.
    """
    rows = []
    for space, features in real.items():
        drawn = model[space]
        first, second = real_halves(features.shape[0], most_of(features))
        half = _frechet(features[first], drawn[instead_of(second, pair_index)]).distance
        real_rows, drawn_rows = chosen(features.shape[0], pair_index, most_of(features))
        sides = _taken(features, real_rows), _taken(drawn, drawn_rows)
        rows.append(compare(name, space, *sides) | {"fid_half": half})
        progress(len(rows), len(real))
    return rows


def most_of(features: Features) -> int:
    """How many images of a set are compared at most."""
    return MOST_EMBEDDINGS if isinstance(features, np.ndarray) else MOST


def _taken(features: Features, rows: np.ndarray) -> Any:
    """Some rows; no copy of a dense array if they are all."""
    whole = isinstance(features, np.ndarray) and np.array_equal(rows, np.arange(len(features)))
    return features if whole else features[rows]


def real_halves(images: int, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of the real images, `most` of each if there are more; empty for fewer than four images."""
    if images < 4:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    generator = np.random.default_rng(SEED)
    first, second = split_halves(images, generator)
    return _some(first, most, generator), _some(second, most, generator)


def chosen(real_images: int, pair_index: np.ndarray, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The real and the model's images that are compared: all, or `most` random ones, of the same captions if they can.

    Parameters
    ----------
    real_images : how many there are.
    pair_index : per image of the model the position of its real one, or -1.
    most : of each; None for all.
    """
    generator = np.random.default_rng(SEED)
    paired = np.flatnonzero(pair_index >= 0)
    if most is not None and len(paired) >= most:
        drawn = _some(paired, most, generator)
        return pair_index[drawn], drawn
    return _some(np.arange(real_images), most, generator), _some(np.arange(len(pair_index)), most, generator)


def _some(rows: np.ndarray, most: int | None, generator: np.random.Generator) -> np.ndarray:
    if most is None or len(rows) <= most:
        return rows
    return np.sort(generator.choice(rows, most, replace=False))


def instead_of(half: np.ndarray, pair_index: np.ndarray) -> np.ndarray:
    """As many images of a model as the real half has: those of its captions if it drew them all, else random ones.

    With the second real half replaced like this, real and drawn images share no caption, as the two halves do not.
    Empty when the model has too few images.
    """
    drawn = np.flatnonzero(np.isin(pair_index, half))
    if len(drawn) == len(half):
        return drawn
    if len(pair_index) < len(half):
        return np.zeros(0, np.int64)
    return np.sort(np.random.default_rng(SEED).choice(len(pair_index), len(half), replace=False))


def compare(name: str, space: str, real: Any, model: Any) -> Row:
    """One row of `metrics.parquet` without `fid_half`; nan where a set has too few images."""
    distance = _frechet(real, model)
    enough = min(real.shape[0], model.shape[0]) > K
    manifold = manifold_metrics(real, model, K) if enough else Manifold(*[math.nan] * len(Manifold._fields))
    return {
        "model": name,
        "space": space,
        "fid": distance.distance,
        "fid_mean": distance.mean,
        "fid_covariance": distance.covariance,
        **manifold._asdict(),
        "images": model.shape[0],
        "k": K,
    }


def _frechet(real: Any, model: Any) -> Frechet:
    if min(real.shape[0], model.shape[0]) < 2:
        return Frechet(math.nan, math.nan, math.nan)
    return frechet_distance(real, model)
