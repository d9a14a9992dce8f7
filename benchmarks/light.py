"""What does light guidance save, and what does it cost?

    python -m precompute benchmark light --json

Draws random concepts of the demo atlas with `energy-guidance` and `energy-guidance-light`, each at the strength that
reaches the mean score of the four best real images within the tolerance, and compares the seconds and the memory of one
drawing there. Each is drawn in a process of its own that has drawn nothing before, so that no memory is left over from
a search; memory is the peak on top of the loaded models.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.costs import add_placement, profiler_of
from engine.atlas import Atlas
from engine.devices import drawing_placement
from engine.files import DATA
from engine.samplers.calibration import mean_of_best
from engine.samplers.generation import GenerationRequest, best_real_images
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SamplerSettings, create
from engine.samplers.scores import ConceptScore
from precompute.studies.methods import ComparisonSettings, compare_method

METHODS = ("energy-guidance", "energy-guidance-light")


def comparison_of(concept: int, options: argparse.Namespace) -> tuple[ModelBundle, ComparisonSettings]:
    """The loaded models, and what is asked for."""
    models = ModelBundle(Atlas.open(options.atlas), *drawing_placement(options.device, options.dtype))
    models.load()
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    target = options.level * mean_of_best([reference.score for reference in best_real_images(models, score)])
    settings = SamplerSettings(steps=options.steps, strength=0.0, candidates=options.states)
    return models, ComparisonSettings(score, target, settings, options.count, tolerance=options.tolerance)


def search(concept: int, method: str, options: argparse.Namespace) -> dict:
    """The strength that reaches the target, and how nearly."""
    models, comparison = comparison_of(concept, options)
    entry = compare_method(method, models, comparison)
    return {"of_target": entry.score / comparison.target, "strength": entry.strength, "matched": entry.matched}


def cost(concept: int, method: str, strength: float, options: argparse.Namespace) -> dict:
    """Seconds and megabytes of one drawing at a strength."""
    models, comparison = comparison_of(concept, options)
    sampler = create(method, models, comparison.at(strength))
    profiler = profiler_of(models.device)
    found = profiler(lambda: sampler.sample(comparison.score, comparison.count, comparison.seed))
    return {"seconds": found.seconds, "megabytes": 1000 * found.gigabytes}


def alone(work: Callable[..., dict], *arguments: Any) -> dict:
    """What some work gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--concepts", type=int, default=8)
    arguments.add_argument("--count", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=GenerationRequest.steps)
    arguments.add_argument("--states", type=int, default=GenerationRequest.candidates)
    arguments.add_argument("--level", type=float, default=1.0, help="of the real images' mean score, to reach")
    arguments.add_argument("--tolerance", type=float, default=0.05)
    arguments.add_argument("--seed", type=int, default=0)
    add_placement(arguments)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    atlas = Atlas.open(options.atlas)
    live = [int(k) for k in atlas.concepts.index[~atlas.concepts["dead"]] if len(atlas.exemplars("real", k, 4)) == 4]
    chosen = np.random.default_rng(options.seed).choice(live, min(options.concepts, len(live)), replace=False)
    rows: list[dict] = []
    for concept in chosen.tolist():
        row: dict = {"concept": concept}
        for method in METHODS:
            found = alone(search, concept, method, options)
            row[method] = found | alone(cost, concept, method, found["strength"], options)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    both = [row for row in rows if all(row[method]["matched"] for method in METHODS)]
    ratios = {
        key: sum(row["energy-guidance"][key] for row in both) / sum(row["energy-guidance-light"][key] for row in both)
        for key in ("seconds", "megabytes")
        if both
    }
    report = {"threads": torch.get_num_threads(), "matched by both": len(both), "full / light": ratios, "rows": rows}
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
