"""Which method draws a concept best at equal activation? `python -m tests.benchmarks.samplers --json`

Held-out live concepts of the demo atlas, each drawn by every method at the strength that reaches the same mean score,
by default that of the four best real images; a method that misses it by more than the tolerance says so and is kept
with its nearest trial. Then, in the space of the encoder's image embeddings:

* `frechet`, `kid`: distance of a method's images, of all concepts together, to the diffusion prior's own samples; the
  row `prior`, fresh samples of it in the same number, shows what a Frechet distance between so few images amounts to.
* `diversity`: mean cosine distance between two images of a concept. `slope`: of the power spectrum, -log power over
  log frequency.
* `seconds`, `megabytes`: a sample's share of drawing a batch once at the strength found, learning a prompt or scoring
  the corpus included; memory is the peak of the process above what it held before.
* `fair`: the Frechet distances of the method and of EnergyDPS over the concepts where both reached the target.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from engine.atlas import Atlas
from engine.blindspots.frechet import frechet_distance
from engine.errors import BlindspotError
from engine.klsc.retrieval import matching_top_k
from engine.samplers.base import OnStep, Sampler, Samples, Score
from engine.samplers.drawing import OVERSHOOT, best_real
from engine.samplers.files import to_pictures
from engine.samplers.instruments import Instruments
from engine.samplers.matching import match_strength, real_target
from engine.samplers.pool import PoolRetrieval, score_pool
from engine.samplers.quality import diversity, kernel_distance, spectral_slope
from engine.samplers.registry import Settings, create
from engine.samplers.score import ConceptScore
from precompute.stages.encode import embed
from tests.benchmarks.scale import highest, resident

ROOT = Path(__file__).parents[2]
STARTS = {
    "energydps": 0.6,
    "energydps-light": 0.6,
    "energydps-smc": 0.3,
    "retrieval-soft": 0.5,
    "maco": 0.6,
    "optimisation": 0.05,
    "soft-prompt": 0.2,
    "accentuation": 0.4,
}
"""Methods that are matched by a search over the strength, and where it starts."""
METHODS = ("energydps", "retrieval", "retrieval-soft", "maco", "optimisation", "soft-prompt", "accentuation")
BATCH = 16
"""Samples of the prior drawn at once."""
TILE = 96
"""Side of an image in the figure."""


@dataclass
class Trial:
    """One batch of a method."""

    strength: float
    samples: Samples
    seconds: float
    gigabytes: float

    @property
    def mean(self) -> float:
        return float(self.samples.scores.mean())


@dataclass
class Watched:
    """A sampler that notes what each of its batches gave and cost."""

    sampler: Sampler
    strength: float
    trials: list[Trial] = field(default_factory=list)

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        samples, seconds, gigabytes = costed(lambda: self.sampler.sample(score, n, seed, on_step))
        self.trials.append(Trial(self.strength, samples, seconds, gigabytes))
        return samples


def costed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the work returned, its seconds, and the gigabytes that it needed at most."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    before, began = resident(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - began, max(highest() - before, 0.0)


@dataclass
class Row:
    """A method's images of one concept."""

    images: Tensor
    score: float
    strength: float
    matched: bool
    trials: int
    seconds: float
    gigabytes: float
    note: str = ""


class Bench:
    """One atlas and the settings of a run."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.atlas = Atlas.open(options.atlas)
        self.models = Instruments(self.atlas, "cpu")
        self.models.load()

    def concepts(self) -> list[int]:
        """Held-out concepts: drawn at random, among the live ones that real images have."""
        frame = self.atlas.concepts
        live = [k for k in frame.index[~frame["dead"]] if len(self.atlas.exemplars("real", int(k), 4)) == 4]
        chosen = np.random.default_rng(self.options.seed).choice(live, min(self.options.concepts, len(live)), False)
        return [int(concept) for concept in chosen]

    def draw(self, concept: int) -> tuple[float, dict[str, Row]]:
        """The target and every method's images of a concept."""
        score = ConceptScore(self.models.encoder, self.models.dictionary, [concept])
        references = [reference.score for reference in best_real(self.models, score)]
        target = self.options.target or real_target(references)
        settings = Settings(self.options.steps, 0.0, OVERSHOOT * max(references))
        return target, {name: self.match(name, score, target, settings) for name in self.options.methods}

    def match(self, name: str, score: ConceptScore, target: float, settings: Settings) -> Row:
        """A method's images at the target, or as near as it gets."""
        began = time.perf_counter()
        shared: dict[str, Any] = {}
        prepare, extra, note, trials = 0.0, 0.0, "", []
        if name.startswith("retrieval"):
            spec = self.models.encoder.spec
            shared["pool"], prepare, extra = costed(lambda: score_pool(self.atlas, score, spec))
        if name == "soft-prompt":
            sampler = create(name, self.models, settings)
            shared["learned"], prepare, extra = costed(lambda: sampler.learn(score, self.options.seed))

        def watched(strength: float) -> Watched:
            sampler = create(name, self.models, replace(settings, strength=strength))
            return Watched(replace(sampler, **shared), strength, trials)

        try:
            if name == "retrieval":
                best = matching_top_k(shared["pool"].scores, target).k
                sampler = PoolRetrieval(self.atlas, spec, best=best, **shared)
                Watched(sampler, best, trials).sample(score, self.options.count, self.options.seed)
            else:
                match_strength(
                    watched,
                    score,
                    target,
                    start=STARTS[name],
                    n=self.options.count,
                    seed=self.options.seed,
                    slack=0.0,
                    relative=self.options.tolerance,
                    evaluations=self.options.evaluations,
                )
        except BlindspotError as error:
            note = str(error)
        if not trials:
            return Row(torch.empty(0, 3, 1, 1), float("nan"), float("nan"), False, 0, 0.0, 0.0, note)
        best = min(trials, key=lambda trial: abs(trial.mean - target))
        matched = abs(best.mean - target) <= self.options.tolerance * abs(target)
        if not matched and not note:
            note = f"{len(trials)} trials came no nearer than {best.mean:.4g}."
        row = Row(
            best.samples.images,
            best.mean,
            best.strength,
            matched,
            len(trials),
            (best.seconds + prepare) / self.options.count,
            max(best.gigabytes, extra) / self.options.count,
            note,
        )
        spent = time.perf_counter() - began
        print(
            f"  {name}: {row.score:.4g} of {target:.4g} at {row.strength:.3g}, {spent:.0f} s. {note}", file=sys.stderr
        )
        return row

    def prior_images(self, n: int, seed: int) -> Tensor:
        """The prior's own samples [n, 3, H, W]."""
        score = ConceptScore(self.models.encoder, self.models.dictionary, [0])
        prior = create("prior", self.models, Settings(self.options.steps, 0.0))
        parts = [prior.sample(score, min(BATCH, n - start), seed + start).images for start in range(0, n, BATCH)]
        return torch.cat(parts)

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> np.ndarray:
        """Unit embeddings [n, d] of images, as in the atlas's index."""
        parts = [self.models.encoder(part) for part in images.split(64)]
        return torch.cat([embed(part.prefix, part.patches) for part in parts]).double().numpy()


def summary(bench: Bench, drawn: dict[int, tuple[float, dict[str, Row]]], reference: np.ndarray) -> dict[str, Any]:
    """The table, one entry a method."""
    table = {}
    for name in bench.options.methods:
        rows = {k: rows[name] for k, (_, rows) in drawn.items() if len(rows[name].images)}
        if len(rows) == 0:
            table[name] = {"matched": 0, "notes": [rows[name].note for _, rows in drawn.values()]}
            continue
        seen = {k: bench.embeddings(row.images) for k, row in rows.items()}
        table[name] = {
            "matched": sum(row.matched for row in rows.values()),
            "of_target": float(np.mean([row.score / drawn[k][0] for k, row in rows.items()])),
            **natural(np.concatenate(list(seen.values())), reference),
            "diversity": float(np.mean([diversity(part) for part in seen.values()])),
            "slope": float(np.mean([spectral_slope(row.images).mean() for row in rows.values()])),
            "seconds": float(np.mean([row.seconds for row in rows.values()])),
            "megabytes": float(np.mean([1000 * row.gigabytes for row in rows.values()])),
            "fair": fair(bench, drawn, name, reference),
        }
    return table


def natural(embeddings: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Distances of embeddings to the prior's own."""
    return {
        "frechet": frechet_distance(reference, embeddings).distance,
        "kid": kernel_distance(reference, embeddings),
    }


def fair(bench: Bench, drawn: dict[int, tuple[float, dict[str, Row]]], name: str, reference: np.ndarray) -> dict | None:
    """Frechet distance and diversity of a method and of EnergyDPS where both reached the target."""
    if "energydps" not in bench.options.methods:
        return None
    both = [rows for _, rows in drawn.values() if rows[name].matched and rows["energydps"].matched]
    if not both:
        return None
    result: dict[str, Any] = {"concepts": len(both)}
    for key, method in (("own", name), ("energydps", "energydps")):
        seen = [bench.embeddings(rows[method].images) for rows in both]
        result[key] = {
            "frechet": frechet_distance(reference, np.concatenate(seen)).distance,
            "diversity": float(np.mean([diversity(part) for part in seen])),
        }
    return result


def draw_figure(path: Path, bench: Bench, drawn: dict[int, tuple[float, dict[str, Row]]], shown: int = 3) -> None:
    """A grid: a row for each concept, a few images for each method, beginning with the best real ones."""
    names = ["real", *bench.options.methods]
    width, height = len(names) * (shown * TILE + 12), len(drawn) * (TILE + 18) + 18
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        pen.text((column * (shown * TILE + 12) + 2, 2), name, fill="black")
    for line, (concept, (target, rows)) in enumerate(drawn.items()):
        top = 18 + line * (TILE + 18)
        for column, name in enumerate(names):
            left = column * (shown * TILE + 12)
            if name == "real":
                best = bench.atlas.exemplars("real", concept, shown)["image"]
                pictures = [bench.atlas.image(int(image)) for image in best]
                caption = f"{concept} {bench.atlas.concepts.label[concept]}, {target:.3g}"
            else:
                pictures = to_pictures(rows[name].images[:shown])
                caption = f"{rows[name].score:.3g}" + ("" if rows[name].matched else ", not matched")
            for place, picture in enumerate(pictures):
                sheet.paste(picture.resize((TILE, TILE)), (left + place * TILE, top))
            pen.text((left + 2, top + TILE + 2), caption, fill="black")
    sheet.save(path)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=ROOT / "data/demo/atlas")
    arguments.add_argument("--concepts", type=int, default=32)
    arguments.add_argument("--count", type=int, default=8, help="images of a concept by each method")
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--target", type=float, help="mean score to reach; default: that of the four best real ones")
    arguments.add_argument("--tolerance", type=float, default=0.05)
    arguments.add_argument("--evaluations", type=int, default=8, help="most trial strengths of a search")
    arguments.add_argument("--reference", type=int, default=256, help="samples of the prior to compare with")
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--minutes", type=float, default=1e9, help="begin no further concept after these")
    arguments.add_argument("--figure", type=Path)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    bench = Bench(options)
    reference = bench.embeddings(bench.prior_images(options.reference, 10_000))
    drawn: dict[int, tuple[float, dict[str, Row]]] = {}
    began = time.perf_counter()
    for concept in bench.concepts():
        if drawn and time.perf_counter() - began > 60 * options.minutes:
            break
        print(f"{concept} {bench.atlas.concepts.label[concept]}", file=sys.stderr)
        drawn[concept] = bench.draw(concept)
    own = bench.embeddings(bench.prior_images(options.count * len(drawn), 20_000))
    table = {"prior": natural(own, reference), **summary(bench, drawn, reference)}
    if options.figure:
        draw_figure(options.figure, bench, drawn)
    notes = {
        f"{concept} {name}": row.note for concept, (_, rows) in drawn.items() for name, row in rows.items() if row.note
    }
    report = {"concepts": list(drawn), "count": options.count, "steps": options.steps, "table": table, "notes": notes}
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
