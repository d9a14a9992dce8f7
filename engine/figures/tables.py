"""The small questions that views ask of a concept table: which stand out, which pass a filter, how alike are two.

A *concept table* is a data frame indexed by concept with at least ``delta, relative, q, frequency, dead``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

LEVEL = 0.05
"""Concepts with a Benjamini-Hochberg q below it are certain to differ, and come first in rankings."""
SIDES = ("suppressed", "exaggerated")
STATUSES = ("suppressed", "neutral", "exaggerated")


@dataclass(frozen=True)
class Filters:
    """Which concepts a view keeps; the defaults keep every live one."""

    statuses: tuple[str, ...] = ()
    """Empty: all."""
    min_frequency: float = 0.0
    """Least share of real images in which the concept fires, in [0, 1]."""
    max_q: float = 1.0
    """Largest Benjamini-Hochberg q."""


@dataclass(frozen=True)
class Summary:
    """One model in numbers, over live concepts where it does not say otherwise."""

    concepts: int
    suppressed: int
    """Concepts beyond the threshold that are `certain` to differ, as `exaggerated`."""
    exaggerated: int
    uncertain: int
    """Concepts beyond a threshold whose q is `LEVEL` or more: they may be there by chance."""
    significant: int | None
    """Concepts with q < 0.05; None where no q was published."""
    median: float
    skewness: float
    """Third standardised moment of delta: below 0, the tail is on the suppressed side."""
    all_concepts: int
    """Concepts of the dictionary, those that fire in no image included."""
    all_skewness: float
    """Over all of them, as in "Conceptual Blindspots in Generative Image Models", section 4.1."""


def status_of(delta: np.ndarray, low: float, high: float) -> np.ndarray:
    """Name each delta ``suppressed`` (< low), ``exaggerated`` (> high) or ``neutral``."""
    delta = np.asarray(delta)
    return np.where(delta < low, "suppressed", np.where(delta > high, "exaggerated", "neutral"))


def keep(table: pd.DataFrame, filters: Filters, low: float, high: float) -> np.ndarray:
    """Return a bool mask [rows] of the live concepts that pass the filters; an unknown (nan) frequency passes."""
    mask = ~table["dead"].to_numpy(bool) & ~(table["frequency"].to_numpy() < filters.min_frequency)
    if filters.max_q < 1.0:
        mask &= table["q"].to_numpy() <= filters.max_q
    if filters.statuses:
        mask &= np.isin(status_of(table["delta"].to_numpy(), low, high), filters.statuses)
    return mask


def certain(table: pd.DataFrame) -> np.ndarray:
    """Return a bool mask [rows] of the concepts with q < `LEVEL`; where no q was published, of all."""
    q = table["q"].to_numpy(np.float64)
    return np.full(len(q), True) if np.isnan(q).all() else q < LEVEL


def clearance(table: pd.DataFrame, side: str = "both") -> np.ndarray:
    """Return how far the nearer end of each 95 % interval lies from 0.5 on a side; below 0 where it covers 0.5.

    Where no interval is known, the distance of delta itself.
    """
    delta = table["delta"].to_numpy(np.float64)
    low, high = (
        np.where(np.isnan(end), delta, end)
        for end in (table[name].to_numpy(np.float64) if name in table else delta for name in ("ci_low", "ci_high"))
    )
    sides = {"suppressed": 0.5 - high, "exaggerated": low - 0.5}
    return sides.get(side, np.maximum(*sides.values()))


def most_different(table: pd.DataFrame, side: str, count: int) -> pd.DataFrame:
    """Return the `count` live concepts that are most clearly ``suppressed``, ``exaggerated`` or either of the two.

    Certain ones come first, and of them the one whose interval ends furthest from 0.5 (`clearance`): among many
    concepts the most extreme deltas are those of rare ones, by chance. One that is certain to differ the other way is
    in neither the suppressed nor the exaggerated list. Ties, which saturated deltas have, are broken by the gap itself.
    """
    live = table[~table["dead"].to_numpy(bool)]
    away, sign = live["delta"] - 0.5, {"suppressed": -1, "exaggerated": 1}.get(side, 0)
    size = sign * live["gap"] if sign else live["gap"].abs()
    ranks = pd.DataFrame({"sure": certain(live), "clear": clearance(live, side), "size": size})
    if sign:
        ranks = ranks[~(ranks["sure"] & (sign * away < 0))]
    return live.loc[ranks.sort_values(["sure", "clear", "size"], ascending=False, kind="stable").index[:count]]


def cluster_names(concepts: pd.DataFrame, words: int = 2) -> dict[int, str]:
    """Return, per cluster of live concepts, the labels by which it differs most from the others; "" without labels.

    Parameters
    ----------
    concepts
        Indexed by concept: ``cluster, label, dead``; a negative cluster is none.
    words
        Most labels in a name.
    """
    live = concepts[~concepts["dead"].to_numpy(bool) & (concepts["cluster"].to_numpy() >= 0)]
    live = live.assign(label=live["label"].fillna("").str.removesuffix(" (?)"))  # the mark of uncertain labels
    named = live[live["label"] != ""]
    counts = pd.crosstab(named["cluster"], named["label"])
    share = counts.div(counts.sum(axis=1), axis=0)
    weight = counts * np.log1p(share / (counts.sum() / max(len(named), 1)))
    found = {int(cluster): "" for cluster in sorted(set(live["cluster"]))}
    for place, cluster in enumerate(weight.index.tolist()):
        row = weight.iloc[place]
        found[int(cluster)] = ", ".join(row[row > 0].nlargest(words).index)
    return found


def delta_of_all(table: pd.DataFrame) -> np.ndarray:
    """Return delta [K] of a concept table, 0.5 for concepts that fire in no image; left out where it is not known."""
    delta = np.where(table["dead"].to_numpy(bool), 0.5, table["delta"].to_numpy(np.float64))
    return delta[np.isfinite(delta)]


def summarise(table: pd.DataFrame, low: float, high: float) -> Summary:
    """Count and describe one model's deltas over live concepts, and their skewness over all."""
    live = table[~table["dead"].to_numpy(bool)]
    delta, whole = live["delta"].to_numpy(np.float64), delta_of_all(table)
    sure, beyond = certain(live), (delta < low) | (delta > high)
    return Summary(
        concepts=len(live),
        suppressed=int(((delta < low) & sure).sum()),
        exaggerated=int(((delta > high) & sure).sum()),
        uncertain=int((beyond & ~sure).sum()),
        significant=None if live["q"].isna().all() else int((live["q"] < LEVEL).sum()),
        median=float(np.median(delta)) if len(delta) else float("nan"),
        skewness=_skewness(delta),
        all_concepts=len(whole),
        all_skewness=_skewness(whole),
    )


def _skewness(delta: np.ndarray) -> float:
    """Third standardised moment; 0 without spread."""
    centred = delta - delta.mean() if len(delta) else delta
    spread = float(np.sqrt(np.mean(centred**2))) if len(delta) else 0.0
    return float(np.mean(centred**3) / spread**3) if spread > 0 else 0.0


class Start(NamedTuple):
    """A concept to look at first."""

    model: str
    side: str
    concept: int
    label: str | None


def where_to_start(tables: Mapping[str, pd.DataFrame], low: float, high: float) -> list[Start]:
    """Return the clearest concept of the model that suppresses, and of the one that exaggerates, most that is certain.

    The stronger of the two is chosen first and the other, where it can be, from another model. A side on which no model
    has a certain concept beyond the threshold is left out.
    """
    summaries = {model: summarise(table, low, high) for model, table in tables.items()}
    counts = {side: {model: getattr(one, side) for model, one in summaries.items()} for side in SIDES}
    starts: dict[str, Start] = {}
    for side in sorted(SIDES, key=lambda name: -max(counts[name].values(), default=0)):
        found = {model: count for model, count in counts[side].items() if count}
        taken = {start.model for start in starts.values()}
        others = {model: count for model, count in found.items() if model not in taken}
        if found:
            model = max(others or found, key=found.__getitem__)
            rows = most_different(tables[model], side, 1)
            starts[side] = Start(model, side, int(rows.index[0]), rows["label"].iloc[0])
    return [starts[side] for side in SIDES if side in starts]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's r of two columns; nan when either is constant."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
