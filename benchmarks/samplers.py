"""Which method draws a concept best at equal activation?

    python -m precompute benchmark samplers --json

Held-out live concepts of the demo atlas (none that a setting was tuned on), each drawn by every method at the strength
that reaches the same mean score, by default that of the four best real images; a method that misses it by more than the
tolerance says so and is kept with its nearest trial. Pushing ends just beyond the target. Judges look at the images:
the atlas's own encoder, which the methods climb and may fool, by its class token (`encoder`) and by the mean of its
patches, where concepts live (`patches`); and, where ../shared/reference is at hand, a DINOv2 that none has seen.

* `recognised`: where the atlas has a judge, the share of the images in which it sees what the concept stands for, over
  the concepts that stand for one of its labels.
* `frechet`, `kid`: distance of a method's images, of all concepts together, to the diffusion prior's own samples; the
  row `prior`, fresh samples of it in the same number, shows what a Frechet distance between so few images amounts to,
  and `corpus`, real images in that number, how far apart the two are, and how diverse, before a concept is asked for.
* `diversity`: mean cosine distance between two images of a concept; `slope`: of the power spectrum, -log power over log
  frequency.
* `seconds`, `megabytes`: a sample's share of drawing a batch once at the strength found, learning a prompt or scoring
  the corpus included; memory is the peak above what was held before, of the process or, with `--device cuda`, the GPU.
* `fair`: the same for the method and for energy guidance over the concepts where both reached the target; `gain`: by
  how much energy guidance is the more diverse there, mean over these concepts, and the `error` of this mean.

`--keep DIR` keeps each concept's images, so that a run with the same options goes on where it stopped; `--share 1/2`
and `--share 2/2` draw halves of the concepts side by side, and a run without it then prints the whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.costs import add_placement, profiler_of
from engine.atlas import Atlas
from engine.blindspots.metrics import frechet_distance
from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.figures.images import Block, Row, image_grid
from engine.files import DATA
from engine.samplers.calibration import mean_of_best, standard_error
from engine.samplers.metrics import diversity, embed, embeddings, kernel_distance, prior_images, spectral_slope
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.recognition import concept_label, recognise
from engine.samplers.records import to_pil
from engine.samplers.registry import SamplerSettings
from engine.samplers.retrieval import score_pool
from engine.samplers.scores import ConceptScore
from engine.vision.encoder import Encoder
from engine.vision.spec import EncoderConfig
from precompute.studies.methods import METHODS, ComparisonSettings, MethodResult, compare_method

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "dinov2-vits14-saliency"
LAYER, SIZE = 8, 112
"""Where the second judge reads, its best layer, and the side it sees images at."""
TUNED = (1, 5, 11, 22, 39, 41, 50, 61, 102)
"""Concepts that settings were tried on, beside those of `benchmarks.guidance`."""
EXAMPLES = 6
"""Concepts in the README's picture, unless they are named."""
GUIDED = 16
"""How many concepts that benchmark draws."""
Judge = Callable[[Tensor], np.ndarray]
"""Images [n, 3, H, W] to unit embeddings [n, d]."""


class Bench:
    """One atlas and the settings of a run."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.atlas = Atlas.open(options.atlas)
        self.models = ModelBundle(self.atlas, *drawing_placement(options.device, options.dtype))
        self.models.load()

    def concepts(self) -> list[int]:
        """Held-out concepts, drawn at random among the live ones that real images have."""
        frame = self.atlas.concepts
        live = frame.index[~frame["dead"]].to_numpy()
        guided = np.random.default_rng(0).choice(live, min(GUIDED, len(live)), replace=False)
        free = sorted({*live.tolist()} - {*guided.tolist(), *TUNED})
        free = [k for k in free if len(self.atlas.exemplars("real", k, 4)) == 4]
        chosen = np.random.default_rng(self.options.seed).choice(free, min(self.options.concepts, len(free)), False)
        return [int(concept) for concept in chosen]

    def comparison(self, concept: int) -> ComparisonSettings:
        """What every method is asked for."""
        options = self.options
        score = ConceptScore(self.models.encoder, self.models.dictionary, [concept])
        scores = score_pool(self.atlas, score, self.models.encoder.spec, self.models.device).scores.tolist()
        target = options.target or mean_of_best(scores)
        settings = SamplerSettings(steps=options.steps, strength=0.0, candidates=options.states)
        return ComparisonSettings(
            score, target, settings, options.count, options.seed, options.tolerance, options.evaluations
        )

    def entries(self, concept: int) -> tuple[float, dict[str, MethodResult]]:
        """The target and every method's entry, drawn now or kept from an earlier run."""
        kept = self.options.keep and self.options.keep / f"{concept}.npz"
        if kept and kept.exists():
            return load_entries(kept)
        comparison, found = self.comparison(concept), {}
        for name in self.options.methods:
            began = time.perf_counter()
            entry = found[name] = compare_method(name, self.models, comparison, profiler_of(self.models.device))
            line = f"{entry.score:.4g} of {comparison.target:.4g} at {entry.strength:.3g}"
            print(f"  {name}: {line}, {time.perf_counter() - began:.0f} s. {entry.note}", file=sys.stderr, flush=True)
        if kept:
            save_entries(kept, comparison.target, found)
        return comparison.target, found

    def corpus(self, count: int) -> Tensor:
        """So many real images, drawn at random, as the encoder sees them."""
        real = np.flatnonzero(self.atlas.images["source"] == "real")
        chosen = np.random.default_rng(self.options.seed).choice(real, min(count, len(real)), replace=False)
        return thumbnails(self.atlas, chosen, self.models.encoder.spec).to(self.models.device)

    def recognised(self, concept: int, images: Tensor) -> list[bool]:
        """Whether the atlas's judge sees in each image what the concept stands for; empty where it stands for nothing.

        Raises
        ------
        BlindspotError
            If the judge cannot be loaded.
        """
        found = recognise(self.models, [concept], images)
        if found is not None and found.missing:
            raise BlindspotError(found.missing)
        return list(found.recognised) if found is not None else []

    def recognition(self, drawn: Drawn, bases: dict[str, Tensor]) -> dict[str, float]:
        """Share of each method's images that are recognised; of `bases`, which show no concept, as every concept."""
        asked = [k for k in drawn if concept_label(self.atlas, [k]) is not None]
        if not asked:
            return {}
        found = {name: [self.recognised(k, images) for k in asked] for name, images in bases.items()}
        for name in self.options.methods:
            images = {k: drawn[k][1][name].images for k in asked}
            found[name] = [self.recognised(k, each) for k, each in images.items() if len(each)] or [[]]
        return {name: float(np.mean(np.concatenate(parts))) for name, parts in found.items()}

    def judges(self) -> dict[str, Judge]:
        """The judges by name."""
        own = self.models.encoder
        found: dict[str, Judge] = {
            "encoder": lambda images: embed(own, images),
            "patches": lambda images: embeddings(own, images).patches,
        }
        if REFERENCE.exists():
            config = EncoderConfig(str(REFERENCE), layer=LAYER, image_size=SIZE)
            other = Encoder.from_pretrained(config, device=self.models.device)
            found["dinov2"] = lambda images: embeddings(other, resized(images)).patches
        return found


def resized(images: Tensor) -> Tensor:
    """Images [n, 3, H, W] as the second judge sees them."""
    return torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)


def save_entries(path: Path, target: float, found: dict[str, MethodResult]) -> None:
    """Write images and figures to one .npz file."""
    facts = {name: {**entry._asdict(), "images": None} for name, entry in found.items()}
    images = {name: entry.images.half().cpu().numpy() for name, entry in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".part").open("wb") as file:
        np.savez_compressed(file, facts=json.dumps({"target": target, "entries": facts}), **images)
    path.with_suffix(".part").rename(path)


def load_entries(path: Path) -> tuple[float, dict[str, MethodResult]]:
    """Read them again."""
    with np.load(path) as file:
        facts = json.loads(str(file["facts"]))
        entries = facts["entries"].items()
        found = {
            name: MethodResult(**{**each, "images": torch.from_numpy(file[name]).float()}) for name, each in entries
        }
    return facts["target"], found


Drawn = dict[int, tuple[float, dict[str, MethodResult]]]
"""Concept to target and entries."""


def summary(names: list[str], judges: dict[str, Judge], drawn: Drawn, references: dict[str, np.ndarray]) -> dict:
    """The table, one entry a method."""
    table: dict[str, Any] = {}
    seen = {
        judge: {name: {k: embed(each[name].images) for k, (_, each) in drawn.items()} for name in names}
        for judge, embed in judges.items()
    }
    for name in names:
        entries = {k: each[name] for k, (_, each) in drawn.items()}
        missing = {k for k, entry in entries.items() if not entry.matched}
        rivals = {k for k, (_, each) in drawn.items() if "energy-guidance" in each and each["energy-guidance"].matched}
        both = sorted(rivals - missing)
        fair: dict[str, Any] = {"concepts": len(both)}
        for judge in judges if both and "energy-guidance" in names else ():
            ours, theirs = ([seen[judge][which][k] for k in both] for which in ("energy-guidance", name))
            gains = [diversity(a) - diversity(b) for a, b in zip(ours, theirs, strict=True)]
            fair[judge] = {
                "own": natural(theirs, references[judge]),
                "energy-guidance": natural(ours, references[judge]),
                "gain": float(np.mean(gains)),
                "error": standard_error(gains) if len(gains) > 1 else None,
            }
        table[name] = {
            "matched": len(entries) - len(missing),
            "of_target": float(np.mean([entry.score / drawn[k][0] for k, entry in entries.items()])),
            **{judge: natural(list(seen[judge][name].values()), references[judge]) for judge in judges},
            "slope": float(np.mean([spectral_slope(entry.images).mean() for entry in entries.values()])),
            "seconds": float(np.mean([entry.seconds for entry in entries.values()])),
            "megabytes": float(np.mean([1000 * entry.gigabytes for entry in entries.values()])),
            "trials": float(np.mean([entry.trials for entry in entries.values()])),
            "fair": fair,
        }
    return table


def natural(parts: list[np.ndarray], reference: np.ndarray) -> dict[str, float]:
    """Distances of embeddings, concept by concept [n, d], to the prior's own, and their diversity."""
    together = np.concatenate(parts)
    return {
        "frechet": frechet_distance(reference, together).distance,
        "kid": kernel_distance(reference, together),
        "diversity": float(np.mean([diversity(part) for part in parts])),
    }


def picture(bench: Bench, drawn: Drawn, names: list[str]) -> Any:
    """Blocks of four images: a row for each concept, a column for the best real ones and for each method."""
    rows = []
    for concept, (target, entries) in drawn.items():
        best = bench.atlas.exemplars("real", concept, 4)["image"]
        blocks = [Block([bench.atlas.image(int(image)) for image in best], f"score {target:.3g}")]
        for name in names:
            entry = entries[name]
            caption = f"score {entry.score:.3g}" + ("" if entry.matched else ", not matched")
            blocks.append(Block(to_pil(entry.images[:4]), caption))
        rows.append(Row(f"{bench.atlas.concepts.label[concept]} · {concept}", blocks))
    return image_grid("Concepts drawn at equal activation", ["best real images", *names], rows, tile=64)


def publish(bench: Bench, drawn: Drawn, report: dict[str, Any], folder: Path, examples: list[int]) -> None:
    """Write what the page *Samplers* and the README show: the report, a picture of each concept and one of some."""
    folder.mkdir(parents=True, exist_ok=True)
    names = bench.options.methods
    for concept, entries in drawn.items():
        picture(bench, {concept: entries}, names).save(folder / f"{concept}.webp", quality=80, method=6)
    some = {concept: drawn[concept] for concept in examples or list(drawn)[:EXAMPLES]}
    picture(bench, some, names).save(folder / "examples.webp", quality=82, method=6)
    (folder / "comparison.json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--concepts", type=int, default=32)
    arguments.add_argument("--count", type=int, default=4, help="images of a concept by each method")
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--states", type=int, default=32, help="states that a sample of energy guidance begins as")
    arguments.add_argument("--target", type=float, help="mean score to reach; default: that of the four best real ones")
    arguments.add_argument("--tolerance", type=float, default=0.05)
    arguments.add_argument("--evaluations", type=int, default=8, help="most trial strengths of a search")
    arguments.add_argument("--reference", type=int, default=256, help="samples of the prior to compare with")
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--keep", type=Path, help="folder that keeps each concept's images")
    arguments.add_argument("--share", default="1/1", help="draw only this share of the concepts, e.g. 1/2")
    arguments.add_argument("--minutes", type=float, default=1e9, help="begin no further concept after these")
    arguments.add_argument("--publish", type=Path, help="folder for the report and pictures, e.g. data/samplers")
    arguments.add_argument("--examples", type=int, nargs="+", help="concepts of the picture of some")
    add_placement(arguments)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    bench, drawn, began = Bench(options), {}, time.perf_counter()
    part, parts = map(int, options.share.split("/"))
    for concept in bench.concepts()[part - 1 :: parts]:
        if drawn and time.perf_counter() - began > 60 * options.minutes:
            break
        print(f"{concept} {bench.atlas.concepts.label[concept]}", file=sys.stderr, flush=True)
        drawn[concept] = bench.entries(concept)
    if parts > 1:
        return
    judges = bench.judges()
    reference = prior_images(bench.models, options.steps, options.reference, 10_000)
    fresh = prior_images(bench.models, options.steps, options.count * len(drawn), 20_000)
    own = {judge: embed(reference) for judge, embed in judges.items()}
    chance = {judge: natural([embed(fresh)], own[judge]) for judge, embed in judges.items()}
    everything = bench.corpus(options.count * len(drawn))
    corpus = {judge: natural([embed(everything)], own[judge]) for judge, embed in judges.items()}
    table = {"prior": chance, "corpus": corpus, **summary(options.methods, judges, drawn, own)}
    for name, share in bench.recognition(drawn, {"prior": fresh, "corpus": everything}).items():
        table[name] = {"recognised": share, **table[name]}
    notes = {f"{k} {name}": entry.note for k, (_, each) in drawn.items() for name, entry in each.items() if entry.note}
    settings = {name: getattr(options, name) for name in ("count", "steps", "states", "tolerance", "seed")}
    settings |= {"device": bench.models.device, "dtype": bench.models.dtype}
    labels = {concept: str(bench.atlas.concepts.label[concept]) for concept in drawn}
    subject = {"labels": labels, "encoder": bench.atlas.info.encoder["id"]}
    report = {"concepts": list(drawn), **subject, **settings, "table": table, "notes": notes}
    if options.publish:
        publish(bench, drawn, report, options.publish, options.examples)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
