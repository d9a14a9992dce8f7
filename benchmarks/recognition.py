"""Do the drawings show what the concept is?

    python -m precompute benchmark recognition --json

Concepts that stand for a label of the atlas's judge (average precision of at least 0.7 on real scenes that did not
choose the label) and that no setting was tuned on are drawn by every method. Reported is the share of the images in
which the judge, another network than the encoder that is climbed, sees the label.

* `real`: the concept's best real images; `prior`: samples without guidance, which is what chance gives.
* `share` is over all images, `median` of the concepts' recognised images, `reached` the share of the images whose score
  is at least 0.95 of the best real images' mean, `fooling` the share that reaches it without being recognised.
* `diversity`: mean cosine distance of a concept's images by the judge's features, mean over concepts; `relative` the
  mean ratio to that of the images `retrieval` returns, real ones of the concept, where that method is among the run's.
* `by attribute`: the share where the label is a kind, a colour, a background ...
* `seconds`: of drawing an image.

`--keep DIR` keeps the images of each concept and method, and a run with the same options goes on where it stopped, also
with other `--methods`; `--minutes N` begins nothing more after N minutes and reports what there is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.costs import add_placement
from engine.atlas import Atlas
from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.files import DATA, write_whole
from engine.samplers.generation import best_real_images, default_cap
from engine.samplers.metrics import diversity
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.recognition import REACHES
from engine.samplers.registry import SamplerSettings, create, require_method
from engine.samplers.scores import ConceptScore
from engine.vision.preprocess import prepare

REAL = "real"
METHODS = (
    "energy-guidance", "energydps", "prior", REAL, "retrieval", "maco", "optimisation", "soft-prompt",
)  # fmt: skip
PAPER_STEPS = 200
"""Reverse steps that stand for the 1000 optimisation steps of the paper's MACO and optimisation."""
RIVALS = ("maco", "optimisation")
"""Methods that get those."""


class Drawing:
    """One atlas and the settings of a run."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.atlas = Atlas.open(options.atlas)
        self.models = ModelBundle(self.atlas, *drawing_placement(options.device, options.dtype))
        self.table = self.atlas.recognition()
        if self.table.empty:
            raise BlindspotError(f"No concept of {options.atlas} stands for a label: build it with a judge.")

    def concepts(self) -> list[int]:
        """Matched concepts that were not tuned on, as many of each label as possible, in random order."""
        left_out = {*self.options.leave_out}
        free = [int(k) for k in self.table.index if k not in left_out and len(self.atlas.exemplars("real", k, 8)) == 8]
        order = np.random.default_rng(self.options.seed).permutation(free)
        turns: dict[str, int] = {}
        ranked = []
        for position, concept in enumerate(order.tolist()):
            label = str(self.table["label"].at[concept])
            turns[label] = turns.get(label, -1) + 1
            ranked.append((turns[label], position, concept))
        return [concept for _, _, concept in sorted(ranked)][: self.options.concepts]

    def images(self, concept: int, method: str) -> dict[str, Any]:
        """Images [n, 3, H, W], their scores, the best real images' mean score and seconds an image; kept if asked."""
        kept = self.options.keep and self.options.keep / f"{concept}-{method}.npz"
        if kept and kept.exists():
            with np.load(kept) as file:
                return {name: file[name] for name in file.files}
        score = ConceptScore(self.models.encoder, self.models.dictionary, [concept])
        references = best_real_images(self.models, score)
        best = float(np.mean([one.score for one in references]))
        began = time.perf_counter()
        if method == REAL:
            exemplars = self.atlas.exemplars("real", concept, self.options.count)["image"]
            images = thumbnails(self.atlas, exemplars, self.models.judge.preparation).to(self.models.device)
            with torch.no_grad():
                seen = thumbnails(self.atlas, exemplars, self.models.encoder.spec).to(self.models.device)
                scores = score(seen).cpu().numpy()
        else:
            steps = PAPER_STEPS if method in RIVALS and self.options.paper_steps else self.options.steps
            settings = SamplerSettings(steps=steps, candidates=self.options.states, score_cap=default_cap(references))
            found = create(method, self.models, settings).sample(score, self.options.count, self.options.seed)
            images, scores = found.images, found.scores.cpu().numpy()
        result = {
            "images": (images.clamp(0, 1) * 255).round().byte().cpu().numpy(), "scores": scores,
            "best": np.array(best), "seconds": np.array((time.perf_counter() - began) / len(images)),
        }  # fmt: skip
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)

            def write(partial: Path) -> None:
                with partial.open("wb") as file:
                    np.savez_compressed(file, allow_pickle=False, **result)

            write_whole(kept, write)
        return result

    @torch.no_grad()
    def diversity(self, found: dict[str, Any]) -> float | None:
        """Mean cosine distance of the images by the features below the judge's last layer; None for a single one."""
        if len(found["images"]) < 2:
            return None
        judge, images = self.models.judge, torch.from_numpy(found["images"]).float() / 255
        seen = judge.model.base_model(prepare(images.to(judge.model.device), judge.preparation))
        pooled = getattr(seen, "pooler_output", None)
        features = seen.last_hidden_state.flatten(2).mean(dim=1) if pooled is None else pooled
        return diversity(features.flatten(1).double().cpu().numpy())

    def recognised(self, concept: int, found: dict[str, Any]) -> list[bool]:
        """Whether the judge sees the concept's label in each image."""
        row = self.table.loc[concept]
        threshold = None if np.isnan(row["threshold"]) else float(row["threshold"])
        images = torch.from_numpy(found["images"]).float() / 255
        return self.models.judge.sees(images, str(row["label"]), threshold).tolist()


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One method's figures over its concepts."""
    seen = np.concatenate([row["recognised"] for row in rows])
    reached = np.concatenate([np.asarray(row["scores"]) >= REACHES * row["best"] for row in rows])
    attributes: dict[str, list[bool]] = {}
    for row in rows:
        attributes.setdefault(row["label"].partition(": ")[0], []).extend(row["recognised"])
    counts = [sum(row["recognised"]) for row in rows]
    return {
        "concepts": len(rows),
        "share": round(float(seen.mean()), 4),
        "median": f"{np.median(counts):g} of {len(rows[0]['recognised'])}",
        "error": round(float(np.std([np.mean(row["recognised"]) for row in rows]) / max(len(rows) - 1, 1) ** 0.5), 4),
        "reached": round(float(reached.mean()), 4),
        "fooling": round(float((reached & ~seen).mean()), 4),
        "seconds": round(float(np.mean([row["seconds"] for row in rows])), 3),
        "diversity": _mean([row["diversity"] for row in rows]),
        "relative": _mean([row["relative"] for row in rows]),
        "by attribute": {name: round(float(np.mean(each)), 4) for name, each in sorted(attributes.items())},
    }


def _mean(numbers: list[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return round(float(np.mean(known)), 4) if known else None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--concepts", type=int, default=20)
    arguments.add_argument("--leave-out", type=int, nargs="*", default=[], help="concepts that settings were tuned on")
    arguments.add_argument("--count", type=int, default=8, help="images of a concept by each method")
    arguments.add_argument("--steps", type=int, default=SamplerSettings.steps)
    arguments.add_argument("--states", type=int, default=SamplerSettings.candidates)
    arguments.add_argument("--paper-steps", action="store_true", help="1000 steps for MACO and optimisation")
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--seed", type=int, default=0)
    add_placement(arguments)
    arguments.add_argument("--keep", type=Path, help="folder that keeps the images")
    arguments.add_argument("--minutes", type=float, default=1e9, help="begin nothing more after these")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    for method in options.methods:
        if method != REAL:
            require_method(method)
    drawing, began = Drawing(options), time.perf_counter()
    drawn: dict[str, list[dict[str, Any]]] = {method: [] for method in options.methods}
    for concept in drawing.concepts():
        for method in options.methods:
            if time.perf_counter() - began > 60 * options.minutes:
                break
            found = drawing.images(concept, method)
            seen, label = drawing.recognised(concept, found), str(drawing.table["label"].at[concept])
            facts = {
                "scores": found["scores"].tolist(),
                "best": float(found["best"]),
                "seconds": float(found["seconds"]),
                "diversity": drawing.diversity(found),
                "relative": None,
            }
            drawn[method].append({"concept": concept, "label": label, "recognised": seen, **facts})
            said = f"{concept} {label}, {method}: {sum(seen)} of {len(seen)}, {facts['seconds']:.1f} s an image"
            print(said, file=sys.stderr, flush=True)
    retrieved = {row["concept"]: row["diversity"] for row in drawn.get("retrieval", ())}
    for row in [row for rows in drawn.values() for row in rows]:
        if row["diversity"] is not None and retrieved.get(row["concept"]):
            row["relative"] = row["diversity"] / retrieved[row["concept"]]
    settings = {name: getattr(options, name) for name in ("count", "steps", "states", "seed", "paper_steps")}
    table = {method: summary(rows) for method, rows in drawn.items() if rows}
    if options.json:
        concepts = [
            {name: value for name, value in row.items() if name != "scores"} | {"method": method}
            for method, rows in drawn.items() for row in rows
        ]  # fmt: skip
        print(json.dumps({**settings, "methods": table, "concepts": concepts}, indent=1))
        return
    for method, row in table.items():
        print(
            f"{method:22s} recognised {row['share']:.3f} ± {row['error']:.3f}, median {row['median']}, "
            f"diversity {row['diversity']} ({row['relative']} of retrieved images'), reached "
            f"{row['reached']:.2f}, fooling {row['fooling']:.2f}, {row['seconds']:.1f} s an image, {row['concepts']} "
            "concepts"
        )


if __name__ == "__main__":
    main()
