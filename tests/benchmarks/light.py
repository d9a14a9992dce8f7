"""What does `light` guidance save, and what does it cost? `python -m tests.benchmarks.light --json`

Draws concepts of the demo atlas with both guidances, each at the strength that reaches the same mean score (a share of
that of the four best real images), and compares seconds and peak memory of a drawing. Each runs in a process of its
own; memory is what comes on top of the loaded models.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.samplers.drawing import STEPS, best_real
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.instruments import Instruments
from engine.samplers.look import GUIDANCES
from engine.samplers.matching import match_strength, real_target
from engine.samplers.score import ConceptScore
from tests.benchmarks.scale import highest, resident

ROOT = Path(__file__).parents[2]


def measure(path: Path, concept: int, guidance: str, share: float, count: int, steps: int) -> dict:
    """Strength, score, seconds and gigabytes of one guidance at its matched strength."""
    models = Instruments(Atlas.open(path), "cpu")
    models.load()
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    target = share * real_target([reference.score for reference in best_real(models, score)])

    def sampler(strength: float) -> EnergyDPS:
        return EnergyDPS(models.prior, steps, strength, guidance=guidance)

    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    sampler(0.1).sample(score, count)
    memory = highest() - before
    match = match_strength(sampler, score, target, n=count, relative=0.05, evaluations=6)
    began = time.perf_counter()
    sampler(match.strength).sample(score, count)
    return {"seconds": time.perf_counter() - began, "gigabytes": memory, "target": target, **match._asdict()}


def compare(path: Path, concept: int, options: argparse.Namespace) -> dict:
    """Both guidances on one concept, and the ratios full / light."""
    rows: dict = {"concept": concept}
    for guidance in GUIDANCES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            settings = (path, concept, guidance, options.share, options.count, options.steps)
            rows[guidance] = pool.apply(measure, settings)
    for key in ("seconds", "gigabytes"):
        rows[f"full / light, {key}"] = rows["full"][key] / rows["light"][key]
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=ROOT / "data/demo/atlas")
    arguments.add_argument("--concepts", type=int, default=4)
    arguments.add_argument("--count", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=STEPS)
    arguments.add_argument("--share", type=float, default=0.8, help="of the real images' mean score, to reach")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    concepts = Atlas.open(options.atlas).concepts
    live = concepts.index[~concepts["dead"]].to_numpy()
    chosen = np.random.default_rng(options.seed).choice(live, min(options.concepts, len(live)), replace=False)
    rows = []
    for concept in chosen.tolist():
        try:
            rows.append(compare(options.atlas, concept, options))
        except BlindspotError as error:
            rows.append({"concept": concept, "error": str(error)})
    print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
