"""Results of `engine.blindspots` as the atlas's tables, so that every writer of an atlas fills the same columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.blindspots.composition import ChangeEvidence, Changes
from engine.blindspots.delta import DeltaSettings, estimate_delta, relative_gap
from engine.blindspots.divergence import Divergence
from engine.blindspots.significance import Gap, Moments, benjamini_hochberg, interval_degrees, normal_p, null_error


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
    defaults: DeltaSettings,
    active: tuple[np.ndarray, np.ndarray],
) -> pd.DataFrame:
    """Rows of `delta.parquet` for one model, at the atlas's default estimator and temperature.

    Parameters
    ----------
    name : the model's source name.
    real, model : moments of the image energies.
    gap : the gap with its standard error; `n` is its number of pairs, or the model's images when unpaired.
    live : [K] the concepts that are tested.
    defaults : estimator and temperature of `delta`, `ci_low` and `ci_high`.
    active : [K] real images and [K] images of the model in which the concept fires; what the intervals' degrees of
        freedom are limited by.
    """
    result = estimate_delta(
        real,
        model,
        gap.se,
        estimator=defaults.estimator,
        temperature=defaults.temperature,
        degrees=interval_degrees(real, model, bool(gap.pairs), *active),
    )
    p = normal_p(gap.gap, null_error(real, model, gap.se))
    return pd.DataFrame(
        {
            "model": name,
            "concept": np.arange(len(p), dtype=np.int32),
            "n": gap.pairs or model.images,
            "gap": gap.gap,
            "se": gap.se,
            "relative": relative_gap(real, model),
            "delta": result.delta,
            "ci_low": result.interval.low,
            "ci_high": result.interval.high,
            "p": p,
            "q": benjamini_hochberg(p, live),
        }
    )


def exemplars_table(source: str, images: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Rows of `exemplars.parquet` for one source.

    Parameters
    ----------
    images : [K, count] global image ids, best first, -1 where there are no more.
    scores : [K, count] mean patch codes.
    """
    concept, rank = np.nonzero(images >= 0)
    return pd.DataFrame(
        {
            "source": source,
            "concept": concept.astype(np.int32),
            "rank": rank.astype(np.int32),
            "image": images[concept, rank],
            "score": scores[concept, rank],
        }
    )


def neighbours_table(kinds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """`neighbours.parquet` from {kind: (others [K, count], values [K, count])}, -1 where there are no more."""
    frames = []
    for kind, (others, values) in kinds.items():
        concept, rank = np.nonzero(np.asarray(others) >= 0)
        frames.append(
            pd.DataFrame(
                {
                    "concept": concept.astype(np.int32),
                    "kind": kind,
                    "rank": rank.astype(np.int32),
                    "other": others[concept, rank],
                    "value": values[concept, rank],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


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
    p : of being nearer than real images are to each other (`memorisation.memorisation_candidates`).
    """
    return pd.DataFrame(
        {
            "model": model,
            "pair": pairs,
            "image": images,
            "real_image": real_images,
            "l2": found.l2,
            "mean_delta": found.mean_delta,
            "nearest_real": nearest,
            "nearest_real_similarity": similarity,
            "p": p,
        }
    )


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
