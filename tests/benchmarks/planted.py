"""Are the planted blindspots found? `python -m tests.benchmarks.planted --json`

The demo's generators have known defects: `no-disc` never draws discs and bird feeders, `woody` draws wooden tables and
palm trees uncalled for. A concept is matched to an attribute by the average precision of its image energy on REAL
scenes, whose ground truth the atlas keeps. The AUROC then asks how well delta alone tells an attribute's concepts from
all other live ones: 1 = all of them on the planted side, 0.5 = they do not stand out. `base` is the control.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from engine.atlas import Atlas

ROOT = Path(__file__).parents[2]
SUPPRESSED = {"kind": ("disc", "bird feeder")}
EXAGGERATED = {"background": ("wooden table",), "kind": ("palm tree",)}
MATCH = 0.5
"""Least average precision of a concept that is matched to an attribute."""


def precisions(atlas: Atlas) -> dict[str, np.ndarray]:
    """Average precision of every concept for every attribute value on real scenes, each float `[concepts]`."""
    energy = atlas.energy("real").toarray()
    labels = atlas.labels()
    labels = labels[labels.image < len(energy)]
    table = {}
    for (attribute, value), rows in labels.groupby(["attribute", "value"]):
        truth = np.zeros(len(energy), bool)
        truth[rows.image.unique()] = True
        table[f"{attribute}: {value}"] = np.array([average_precision_score(truth, column) for column in energy.T])
    return table


def matched(table: dict[str, np.ndarray], live: np.ndarray) -> dict[str, np.ndarray]:
    """Concepts of each attribute: those it describes better than any other does, with a precision of at least MATCH."""
    names = list(table)
    scores = np.stack([table[name] for name in names])
    best = scores.argmax(axis=0)
    return {name: np.flatnonzero((best == i) & (scores[i] >= MATCH) & live) for i, name in enumerate(names)}


def planted(atlas: Atlas, estimator: str = "gap") -> dict[str, dict[str, dict[str, float | int]]]:
    """{model: {attribute: {auroc, concepts, images}}}; AUROC above a half means the planted direction."""
    live = ~atlas.concepts["dead"].to_numpy()
    groups = matched(precisions(atlas), live)
    images = {source.name: source.images for source in atlas.sources}
    report: dict[str, dict[str, dict[str, float | int]]] = {}
    for model in atlas.models:
        delta = atlas.delta(model, estimator=estimator)["delta"].to_numpy()
        report[model] = {}
        for sign, wanted in ((-1, SUPPRESSED), (1, EXAGGERATED)):
            names = [f"{attribute}: {value}" for attribute, values in wanted.items() for value in values]
            for name in (*names, " + ".join(names)):
                concepts = np.concatenate([groups.get(part, np.array([], int)) for part in name.split(" + ")])
                positive = np.isin(np.arange(len(delta)), concepts)[live]
                auroc = float(roc_auc_score(positive, sign * delta[live])) if len(concepts) else float("nan")
                report[model][name] = {"auroc": round(auroc, 3), "concepts": len(concepts), "images": images[model]}
    return report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=ROOT / "data/demo/atlas")
    arguments.add_argument("--estimator", default="gap")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    report = planted(Atlas.open(options.atlas), options.estimator)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for model, rows in report.items():
        for name, row in rows.items():
            print(
                f"{model:12s} {name:60s} AUROC {row['auroc']:.3f}  ({row['concepts']} concepts, {row['images']} images)"
            )


if __name__ == "__main__":
    main()
