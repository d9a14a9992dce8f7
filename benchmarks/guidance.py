"""Does guidance work?

    python -m precompute benchmark guidance --json

Draws random live concepts of the demo atlas with energy guidance and, from the same seeds, without guidance, and
compares the score s_k of the samples with that of the best four real images.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.costs import add_placement
from engine.atlas import Atlas
from engine.devices import Placement, drawing_placement
from engine.files import DATA
from engine.samplers.generation import GenerationRequest, generate_images, warm_up


class Clock:
    """Notes when the first step is heard of."""

    def __init__(self) -> None:
        self.began, self.first = time.perf_counter(), 0.0

    def now(self) -> float:
        return time.perf_counter() - self.began

    def __call__(self, event: object) -> None:
        self.first = self.first or self.now()


def measure(atlas: Atlas, concepts: int, count: int, seed: int, placement: Placement) -> dict:
    """Scores of guided and unguided samples and of the best real images, and seconds per drawing."""
    live = atlas.concepts.index[~atlas.concepts["dead"]].to_numpy()
    chosen = np.sort(np.random.default_rng(seed).choice(live, min(concepts, len(live)), replace=False))
    device, dtype = placement
    warm_up(atlas, device, dtype)
    rows = []
    for concept in chosen.tolist():
        clock = Clock()
        request = GenerationRequest(concept, count=count, seed=seed)
        guided = generate_images(atlas, request, device, clock, dtype)
        seconds = clock.now()
        plain = generate_images(atlas, replace(request, strength=0.0), device, dtype=dtype)
        rows.append(
            {
                "concept": concept,
                "label": str(atlas.concepts.label[concept]),
                "guided": guided.samples.scores.mean().item(),
                "unguided": plain.samples.scores.mean().item(),
                "real": guided.reference_score,
                "seconds": seconds,
                "first_preview": clock.first,
            }
        )
    mean = {key: float(np.mean([row[key] for row in rows])) for key in ("guided", "unguided", "real", "seconds")}
    return {
        "concepts": rows,
        "mean": mean,
        "guided / real": mean["guided"] / mean["real"],
        "guided / unguided": mean["guided"] / mean["unguided"],
        "slowest": max(row["seconds"] for row in rows),
        "slowest first preview": max(row["first_preview"] for row in rows),
        "threads": torch.get_num_threads(),
        "device": device,
        "dtype": dtype,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--concepts", type=int, default=16)
    arguments.add_argument("--count", type=int, default=4)
    arguments.add_argument("--seed", type=int, default=0)
    add_placement(arguments)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    placement = drawing_placement(options.device, options.dtype)
    report = measure(Atlas.open(options.atlas), options.concepts, options.count, options.seed, placement)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for row in report["concepts"]:
        print(
            "{concept:5d} {label:32.32s} guided {guided:8.3f}  unguided {unguided:8.3f}  real {real:8.3f}".format(**row)
        )
    print({key: value for key, value in report.items() if key != "concepts"})


if __name__ == "__main__":
    main()
