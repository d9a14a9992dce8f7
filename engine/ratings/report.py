"""What a study found: means, differences, shares and agreement as tables, of all ratings so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from engine.ratings.agreement import Level, alpha_interval, embed_texts, weighted_variance
from engine.ratings.protocols import CAPTIONS, INTERPRETABILITY, SUCCESS
from engine.ratings.statistics import (
    CrossedRatings,
    IntervalEstimate,
    difference_interval,
    mean_interval,
    proportion_interval,
    success_interval,
)
from engine.ratings.store import RatingStudy

SCALE = (1.0, 4.0)
RATING = ("rater", "rater_kind", "unit", "method", "kind", "value", "note", "seconds", "at")
"""Columns of the ratings that a report writes."""
FAMOUS = 10
"""Concepts of each source that the table of misfires lists."""


@dataclass(frozen=True)
class RatingReport:
    """The tables of a study."""

    study: str
    protocol: str
    ended: bool
    items: int
    ratings: pd.DataFrame
    """One row per rating and per method that the rated item stands for."""
    tables: Mapping[str, pd.DataFrame]
    space: str | None = None
    """Embedding of the descriptions' variance."""
    origin: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Everything but the ratings themselves, for JSON."""
        head = {"study": self.study, "protocol": self.protocol, "ended": self.ended, "items": self.items,
                "ratings": int(self.ratings["item"].nunique()) if len(self.ratings) else 0,
                "embedding": self.space, "origin": dict(self.origin)}  # fmt: skip
        records = {name: table.to_dict("records") for name, table in self.tables.items()}
        return {**head, **records}


def rating_report(study: RatingStudy, embedding: str | None = None, without: Sequence[int] = ()) -> RatingReport:
    """Return what a study found so far.

    Parameters
    ----------
    study
        The study; its methods are named here, so nobody who still rates should see the result.
    embedding
        For the variance of descriptions, see `engine.ratings.agreement.embed_texts`.
    without
        Of error cases: concepts whose label is wrong, not their detection; their misfires do not count (Conceptual
        Blindspots, Figure 23).

    Raises
    ------
    BlindspotError
        If there is no such embedding model.
    """
    items, said = study.items(), study.ratings()
    rated = said.merge(items, on="token")
    rated["item"] = rated["rater"] + "\0" + rated["token"]
    raters = [name for name in dict.fromkeys(said["rater"])]
    long = rated.explode("groups", ignore_index=True)
    long["method"] = [group.method for group in long["groups"]]
    long["kind"] = [group.kind for group in long["groups"]]
    space: str | None = None
    tables: dict[str, pd.DataFrame] = {}
    if len(long):
        if study.protocol is INTERPRETABILITY:
            tables, space = _interpretability(long, raters, embedding)
        elif study.protocol is CAPTIONS:
            tables = _captions(long, raters)
        else:
            tables = _errors(long, raters, set(without))
    progress = pd.DataFrame(
        [(one.rater, one.kind, one.done) for one in study.progress()], columns=["rater", "rater_kind", "ratings"]
    )
    return RatingReport(
        study.name, study.protocol.name, study.ended, len(items), long[[*RATING, "item"]],
        {"raters": progress, **tables}, space, study.origin,
    )  # fmt: skip


def _interpretability(
    long: pd.DataFrame, raters: list[str], embedding: str | None
) -> tuple[dict[str, pd.DataFrame], str]:
    """Tables 4, 6 and 7 of arXiv:2605.17504, with what they lack: intervals and agreement."""
    long = long.assign(score=long["value"].astype(float))
    embedded = embed_texts(long["note"].tolist(), embedding)
    rows, blocks = [], {}
    for (method, kind), group in _groups(long):
        block = blocks[method, kind] = crossed(group, "score", raters)
        variances = _description_variances(group, embedded.vectors)
        mean, success = mean_interval(block, SCALE), success_interval(block, SUCCESS)
        variance = mean_interval(np.array(variances)[:, None], (0.0, 1.0)) if variances else None
        rows.append(
            {
                "method": method, "kind": kind, "units": len(block), "ratings": int(np.isfinite(block).sum()),
                **_named("mean", mean), **_named("success", success), **_named("variance", variance),
                "described": len(variances),
            }
        )  # fmt: skip
    tables = {
        "methods": pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True),
        "differences": _differences(long, raters),
        "kinds": _kinds(blocks),
        "by_rater": _by_rater(long),
        "agreement": _agreement(crossed(long, "score", raters, ["unit", "method", "kind"]), ("ordinal", "interval")),
    }
    return tables, embedded.space


def _description_variances(group: pd.DataFrame, vectors: np.ndarray) -> list[float]:
    """Weighted variance of each unit's descriptions."""
    described = np.abs(vectors).sum(axis=1) > 0
    found = []
    for _, rows in group.groupby("unit"):
        places = rows.index[described[rows.index]]
        value = weighted_variance(vectors[places], group.loc[places, "score"].to_numpy())
        if math.isfinite(value):
            found.append(value)
    return found


def _differences(long: pd.DataFrame, raters: list[str]) -> pd.DataFrame:
    """Two methods on the concepts that both have, by the same raters: what raters add cancels."""
    rows = []
    for kind, group in long.groupby("kind", sort=True):
        wide = group.pivot_table(index=["unit", "rater"], columns="method", values="score")
        order = wide.mean().sort_values(ascending=False).index
        for first, second in combinations(order, 2):
            common = (wide[first] - wide[second]).dropna().rename("score").reset_index()
            if not len(common):
                continue
            block = crossed(common, "score", raters)
            width = SCALE[1] - SCALE[0]
            found = mean_interval(block, (-width, width))
            rows.append({"first": first, "second": second, "kind": kind, "units": len(block),
                         "ratings": len(common), **_named("difference", found)})  # fmt: skip
    return pd.DataFrame(rows)


def _kinds(blocks: Mapping[tuple[str, str], CrossedRatings]) -> pd.DataFrame:
    """Concepts against single neurons, by method (Table 7)."""
    rows = []
    for method in dict.fromkeys(method for method, _ in blocks):
        if (method, "concept") in blocks and (method, "neuron") in blocks:
            first, second = blocks[method, "concept"], blocks[method, "neuron"]
            width = SCALE[1] - SCALE[0]
            rows.append({"method": method, "first": "concept", "second": "neuron",
                         **_named("difference", difference_interval(first, second, (-width, width)))})  # fmt: skip
    return pd.DataFrame(rows)


def _by_rater(long: pd.DataFrame) -> pd.DataFrame:
    """The mean score that each rater gives each method (Table 6)."""
    groups = long.groupby(["rater", "rater_kind", "method", "kind"], sort=True)["score"]
    return groups.agg(mean="mean", ratings="count").reset_index()


def _captions(long: pd.DataFrame, raters: list[str]) -> dict[str, pd.DataFrame]:
    """Shares of sufficient, partial and wrong captions, by model and kind of pair."""
    options = [option.value for option in CAPTIONS.options]
    rows = []
    for (method, kind), group in _groups(long):
        for option in options:
            block = crossed(group.assign(share=(group["value"] == option).astype(float)), "share", raters)
            found, count = proportion_interval(block), int(np.isfinite(block).sum())
            rows.append({"model": method, "kind": kind, "caption": option, "pairs": len(block), "ratings": count,
                         **_named("share", found)})  # fmt: skip
    once = long.drop_duplicates(["rater", "unit"])
    ranks = once.assign(rank=once["value"].map({value: place for place, value in enumerate(options)}).astype(float))
    by_rater = long.groupby(["rater", "rater_kind", "method", "kind", "value"]).size().rename("ratings").reset_index()
    return {
        "captions": pd.DataFrame(rows),
        "by_rater": by_rater,
        "agreement": _agreement(crossed(ranks, "rank", raters), ("nominal", "ordinal")),
    }


def _errors(long: pd.DataFrame, raters: list[str], without: set[int]) -> dict[str, pd.DataFrame]:
    """Misfires and missing concepts by source (Conceptual Blindspots, Tables 2 and 3, Figures 22 and 23)."""
    flags = pd.DataFrame(_flags(long, without))
    longest = int(flags["place"].max()) + 1 if len(flags) else 0
    sources, curves = [], []
    for (method, kind), group in _groups(long):
        own = flags[flags["method"] == method]
        share = crossed(own.groupby(["unit", "rater"])["flag"].mean().reset_index(), "flag", raters)
        missing = crossed(group.assign(flag=(group["note"] != "").astype(float)), "flag", raters)
        sources.append({"source": method, "kind": kind, "images": len(missing), "ratings": len(group),
                        **_named("misfires", proportion_interval(share)),
                        **_named("missing", proportion_interval(missing))})  # fmt: skip
        at = own.assign(first=own["place"].where(own["flag"] > 0, math.inf))
        firsts = at.groupby(["unit", "rater"])["first"].min().reset_index()
        for k in range(1, longest + 1):
            reached = firsts.assign(flag=(firsts["first"] < k).astype(float))
            interval = proportion_interval(crossed(reached, "flag", raters))
            curves.append({"source": method, "kind": kind, "k": k, **_named("share", interval)})
    places = crossed(flags.drop_duplicates(["rater", "unit", "concept"]), "flag", raters, ["unit", "concept"])
    return {
        "sources": pd.DataFrame(sources),
        "misfires": _famous(flags),
        "curves": pd.DataFrame(curves),
        "agreement": _agreement(places, ("nominal",)),
    }


def _flags(long: pd.DataFrame, without: set[int]) -> Iterator[dict[str, Any]]:
    """One row per rating and listed concept: whether it was marked as not to be seen."""
    for row in long.to_dict("records"):
        marked = set(row["value"])
        listed = zip(row["facts"]["concepts"], row["content"]["concepts"], strict=True)
        for place, (concept, shown) in enumerate(listed):
            if concept not in without:
                yield {**{key: row[key] for key in ("unit", "rater", "method")}, "place": place, "concept": concept,
                       "label": shown["label"], "flag": float(place in marked)}  # fmt: skip


def _famous(flags: pd.DataFrame) -> pd.DataFrame:
    """The concepts that misfire in most images of a source, by at least half of the raters of each."""
    if not len(flags):
        return pd.DataFrame()
    by_image = flags.groupby(["method", "concept", "label", "unit"])["flag"].mean().reset_index()
    by_image["flag"] = (by_image["flag"] >= 0.5).astype(int)
    counted = by_image.groupby(["method", "concept", "label"])["flag"].agg(images="sum", shown="count").reset_index()
    counted = counted[counted["images"] > 0].rename(columns={"method": "source"})
    counted["share"] = counted["images"] / counted["shown"]
    order = counted.sort_values(["source", "images", "share", "concept"], ascending=[True, False, False, True])
    return order.groupby("source").head(FAMOUS).reset_index(drop=True)


def _agreement(block: CrossedRatings, levels: Iterable[Level]) -> pd.DataFrame:
    several = int((np.isfinite(block).sum(axis=1) >= 2).sum())
    return pd.DataFrame(
        [{"level": level, "units": several, **_named("alpha", alpha_interval(block, level))} for level in levels]
    )


def crossed(
    frame: pd.DataFrame, column: str, raters: Sequence[str], index: Sequence[str] = ("unit",)
) -> CrossedRatings:
    """Return ratings as units x raters, NaN where there is none; columns are `raters` in their order."""
    units = frame.groupby(list(index), sort=True).ngroup().to_numpy()
    columns = pd.Index(raters).get_indexer(pd.Index(frame["rater"]))
    block = np.full((int(units.max(initial=-1)) + 1, len(raters)), np.nan)
    block[units, columns] = frame[column].to_numpy(float)
    return block


def _groups(long: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    for key, group in long.groupby(["method", "kind"], sort=True):
        yield (str(key[0]), str(key[1])), group  # type: ignore[index]


def _named(name: str, found: IntervalEstimate | None) -> dict[str, float]:
    """A number and its interval as columns."""
    if found is None:
        return {name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
