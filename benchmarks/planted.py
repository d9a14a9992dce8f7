"""Are the planted blindspots found?

    python -m precompute benchmark planted --json

The demo's generators have known defects: `no-disc` never draws discs and bird feeders, `woody` draws wooden tables and
palm trees uncalled for. A concept is matched to an attribute by the average precision of its image energy on REAL
scenes, whose ground truth the atlas keeps. The AUROC then asks how well delta alone tells an attribute's concepts from
those that have nothing to do with the defect: 1 = all of them on the planted side, 0.5 = they do not stand out. Left
out are concepts of the model's other planted attribute and those that describe a planted attribute best but not well
enough to be matched: delta moves them too, as it should. `strict` counts these as misses. `base` is the control.

`base-early` is another: a weak model misses small and rare things, planted or not. `within` narrows it down: the same
AUROC against the concepts of attributes of the same family only (discs against the other kinds). `excess` is the
AUROC of the difference to `base`, a model of the same making without the plant, instead of that to real images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from engine.atlas import Atlas
from engine.files import DATA

SUPPRESSED = {"kind": ("disc", "bird feeder")}
EXAGGERATED = {"background": ("wooden table",), "kind": ("palm tree",)}
CONTROL = "base"
"""The model that the others were made from, in which nothing was planted."""
MATCH = 0.6
"""Least average precision of a concept that is matched to an attribute."""


def precisions(atlas: Atlas) -> dict[str, np.ndarray]:
    """Average precision of every concept for every attribute value on real scenes, each float `[concepts]`."""
    energy = atlas.energy("real").toarray()
    labels = atlas.labels()
    labels = labels[labels.image < len(energy)]
    groups = labels.groupby(["attribute", "value"])
    truth = np.zeros((len(groups), len(energy)), bool)
    for row, (_, rows) in zip(truth, groups, strict=True):
        row[rows.image] = True
    found = np.stack([average_precision(truth, column) for column in energy.T], axis=1)
    return {f"{attribute}: {value}": row for (attribute, value), row in zip(groups.groups, found, strict=True)}


def average_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of scores [n] for each row of truths [attributes, n], as scikit-learn's, sorting only once."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = truth[:, order].cumsum(axis=1)[:, ends]
    return (np.diff(found, axis=1, prepend=0) * found / (ends + 1)).sum(axis=1) / found[:, -1]


def matched(table: dict[str, np.ndarray], live: np.ndarray, least: float = MATCH) -> dict[str, np.ndarray]:
    """Concepts of each attribute: those it describes better than any other does, with at least this precision."""
    names = list(table)
    scores = np.stack([table[name] for name in names])
    best = scores.argmax(axis=0)
    return {name: np.flatnonzero((best == i) & (scores[i] >= least) & live) for i, name in enumerate(names)}


def planted(atlas: Atlas, estimator: str = "gap") -> dict[str, dict[str, dict[str, float | int]]]:
    """{model: {attribute: {auroc, strict, within, excess, concepts, images}}}; AUROC above .5: as planted."""
    live = ~atlas.concepts["dead"].to_numpy()
    table = precisions(atlas)
    clear, related = matched(table, live), matched(table, live, least=0.0)
    images = {source.name: source.images for source in atlas.sources}
    mean = {model: atlas.delta(model)["energy_model"].to_numpy() for model in atlas.models}
    report: dict[str, dict[str, dict[str, float | int]]] = {}
    for model in atlas.models:
        delta = atlas.delta(model, estimator=estimator)["delta"].to_numpy()
        excess = mean[model] - mean[CONTROL] if CONTROL in mean else np.zeros(len(live))
        report[model] = {}
        for sign, wanted in ((-1, SUPPRESSED), (1, EXAGGERATED)):
            names = [f"{attribute}: {value}" for attribute, values in wanted.items() for value in values]
            others = live & ~_among([related[name] for name in names], len(live))
            families = tuple(f"{attribute}:" for attribute in wanted)
            family = _among([found for name, found in clear.items() if name.startswith(families)], len(live))
            for name in (*names, " + ".join(names)):
                positive = _among([clear[part] for part in name.split(" + ")], len(live))
                report[model][name] = {
                    "auroc": _auroc(positive, others, sign * delta),
                    "strict": _auroc(positive, live & ~positive, sign * delta),
                    "within": _auroc(positive, others & family, sign * delta),
                    "excess": _auroc(positive, others, sign * excess),
                    "concepts": int(positive.sum()),
                    "images": images[model],
                }
    return report


def _among(groups: list[np.ndarray], count: int) -> np.ndarray:
    """Whether each of `count` concepts is in one of the groups."""
    return np.isin(np.arange(count), np.concatenate(groups))


def _auroc(positive: np.ndarray, negative: np.ndarray, score: np.ndarray) -> float:
    """How often a positive concept scores higher than a negative one; NaN without positives."""
    if not positive.any():
        return float("nan")
    chosen = positive | negative
    return round(float(roc_auc_score(positive[chosen], score[chosen])), 3)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--estimator", default="gap")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    report = planted(Atlas.open(options.atlas), options.estimator)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for model, rows in report.items():
        for name, row in rows.items():
            figures = ", ".join(f"{key} {row[key]:.3f}" for key in ("auroc", "strict", "within", "excess"))
            print(f"{model:12s} {name:46s} {figures}  ({row['concepts']} concepts, {row['images']} images)")


if __name__ == "__main__":
    main()
