"""Results of `engine.blindspots` as the atlas's tables, so that every writer of an atlas fills the same columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from engine.atlas.schema import TABLES
from engine.blindspots.composition import ChangeEvidence, Changes
from engine.blindspots.delta import DeltaSettings, delta_columns
from engine.blindspots.divergence import Divergence
from engine.blindspots.significance import Gap, Moments


def energies_table(
    source: str, moments: Moments, maximum: np.ndarray, fires: np.ndarray, images_active: np.ndarray
) -> pd.DataFrame:
    """Rows of `energies.parquet` for one source; arrays are [K], named as in `energy.SourceEnergies`."""
    return pd.DataFrame(
        {
            "source": source,
            "concept": np.arange(len(maximum), dtype=np.int32),
            "images": moments.images,
            "sum": moments.sum,
            "sum_sq": moments.sum_sq,
            "max": maximum,
            "fires": fires,
            "images_active": images_active,
        }
    )


def delta_table(
    name: str,
    real: Moments,
    model: Moments,
    gap: Gap,
    live: np.ndarray,
    settings: DeltaSettings,
    active: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:
    """Rows of `delta.parquet` for the model `name`, at the atlas's estimator and temperature (see `delta_columns`).

    `n` is the gap's number of pairs, or the model's images when unpaired.
    """
    columns = delta_columns(
        real,
        model,
        gap.se,
        live=live,
        active=active,
        paired=bool(gap.pairs),
        estimator=settings.estimator,
        temperature=settings.temperature,
    )
    ids = {"model": name, "concept": np.arange(len(live), dtype=np.int32), "n": gap.pairs or model.images}
    return pd.DataFrame({**ids, "se": gap.se, **columns})[TABLES["delta"].names]


def exemplars_table(
    source: str, images: Int[np.ndarray, "concepts count"], scores: Float[np.ndarray, "concepts count"]
) -> pd.DataFrame:
    """Rows of `exemplars.parquet` for one source: global image ids, best first and -1 where there are no more, and
    their mean patch codes."""
    return _ranked(images, {"image": images, "score": scores}).assign(source=source)[TABLES["exemplars"].names]


def neighbours_table(kinds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """`neighbours.parquet` from {kind: (others [K, count], values [K, count])}, -1 where there are no more."""
    frames = [
        _ranked(others, {"other": others, "value": values}).assign(kind=kind)
        for kind, (others, values) in kinds.items()
    ]
    return pd.concat(frames, ignore_index=True)[TABLES["neighbours"].names]


def _ranked(ids: np.ndarray, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row per id that is not -1: concept, rank, and the columns."""
    concept, rank = np.nonzero(np.asarray(ids) >= 0)
    places = {"concept": concept.astype(np.int32), "rank": rank.astype(np.int32)}
    return pd.DataFrame({**places, **{name: values[concept, rank] for name, values in columns.items()}})


def divergence_table(
    model: str,
    pairs: np.ndarray,
    images: np.ndarray,
    real_images: np.ndarray,
    found: Divergence,
    nearest: np.ndarray,
    similarity: np.ndarray,
    p: np.ndarray,
) -> pd.DataFrame:
    """Rows of `divergence.parquet` for one paired model; every argument but the first is per pair, images by global id.

    Parameters
    ----------
    found : `divergence.pair_divergence`.
    nearest, similarity : the real image nearest to each drawn one and its cosine.
    p : of being nearer than real images are to each other (`divergence.memorisation_p`).
    """
    columns: tuple[Any, ...] = (model, pairs, images, real_images, found.l2, found.mean_delta, nearest, similarity, p)
    return pd.DataFrame(dict(zip(TABLES["divergence"].names, columns, strict=True)))


def changes_table(model: str, found: Changes, evidence: ChangeEvidence) -> pd.DataFrame:
    """Rows of `changes.parquet` for one model."""
    return pd.DataFrame(
        {
            "model": model,
            "first": found.first,
            "second": found.second,
            "real_cosine": found.real,
            "model_cosine": found.model,
            "real_tokens": found.real_tokens,
            "model_tokens": found.model_tokens,
            "real_images": evidence.real_images,
            "model_images": evidence.model_images,
            "gap": evidence.gap,
            "se": evidence.se,
            "p": evidence.p,
            "p_adjusted": evidence.corrected,
        }
    )
