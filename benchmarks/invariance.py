"""Do the members of invariant sets answer as their queries, and what do they cost?

    python -m precompute benchmark invariance --concepts 16 --members 16 --json

Each query is a real image that shows a concept; what is held constant is the concept's score. Reported per method:

* `within`: share of the members whose response, in the 8-bit image, is within 1 % of the query's.
* `robust`: share of those whose response changes by less than 10 % after an ideal low-pass filter at half of Nyquist;
  `query`: the same share of the queries themselves at the members' size; `as_query`: the share of members whose
  response changes by no more than 10 % more than that of their query.
* `diversity`: mean cosine distance of the members of a set by the encoder's class token, mean over sets; beside it
  `guided`, that of up to eight samples of energy guidance which is capped at the same score.
* `evaluations`: of the prior's network, a member; `seconds`: a member.

`--descent N` also runs Algorithm 1 of the thesis from draws of the prior for N of the concepts, with `--descent-steps`
gradient steps at most (the thesis has 512 to 1024), and reports the same, with the ratio of evaluations. Its loss has
the responses to filtered images in it (lines 14 to 20, `--descent-low-pass multi-printed`), and it stops where the
whole loss is as small as the tolerance makes that of the response alone; `--descent-low-pass none` is section 3.3.2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.files import DATA
from engine.invariance.parsing import parse_target
from engine.invariance.request import InvariantRequest
from engine.invariance.sampling import CUTOFFS, InvariantResult, find_members
from engine.samplers.metrics import diversity, embed
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.registry import SamplerSettings, create
from engine.samplers.scores import ConceptScore

HALF = CUTOFFS.index(0.5)


def queries(atlas: Atlas, count: int, seed: int) -> list[tuple[int, int]]:
    """Live concepts in random order, each with one of the eight real images that show it most."""
    rng = np.random.default_rng(seed)
    live = np.flatnonzero(~atlas.concepts["dead"].to_numpy(bool))
    found = []
    for concept in rng.permutation(live).tolist():
        images = atlas.exemplars("real", concept, 8)["image"]
        if len(images) == 8:
            found.append((concept, int(images.iloc[int(rng.integers(8))])))
    return found[:count]


def guided_diversity(models: ModelBundle, concept: int, image: int, count: int, seed: int) -> float:
    """Diversity of energy guidance's samples that are pushed as far as the query's score."""
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    query = thumbnails(models.atlas, [image], models.encoder.spec).to(models.device)
    cap = float(parse_target(f"concept:{concept}").build(models).target_of(query)[0])
    settings = SamplerSettings(steps=25, score_cap=cap, guidance_end=1.0)
    return diversity(
        embed(models.encoder, create("energy-guidance", models, settings).sample(score, count, seed).images)
    )


def summary(models: ModelBundle, results: list[InvariantResult]) -> dict[str, Any]:
    """One method's figures over its sets."""
    members = [member for result in results for member in result.members]
    found = [member for member in members if member.converged]
    pairs = [(one, result.query_curve) for result in results if result.query_curve for one in result.members]
    spread = [diversity(embed(models.encoder, result.images)) for result in results if len(result.members) > 1]
    rates = [result.acceptance for result in results if result.acceptance is not None]
    return {
        "sets": len(results),
        "members": len(members),
        "within": round(len(found) / len(members), 4),
        "robust": round(float(np.mean([member.curve[HALF] < 0.1 for member in found])), 4) if found else None,
        "query": round(float(np.mean([curve[HALF] < 0.1 for _, curve in pairs])), 4),
        "as_query": round(float(np.mean([one.curve[HALF] < curve[HALF] + 0.1 for one, curve in pairs])), 4),
        "diversity": round(float(np.mean(spread)), 4) if spread else None,
        "acceptance": round(float(np.mean(rates)), 3) if rates else None,
        "evaluations": round(sum(result.evaluations for result in results) / len(members), 1),
        "seconds": round(sum(result.seconds for result in results) / len(members), 2),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--atlas", type=Path, default=DATA / "demo/atlas")
    arguments.add_argument("--concepts", type=int, default=16)
    arguments.add_argument("--skip", type=int, default=0, help="leave out the first of them: another run's")
    arguments.add_argument("--members", type=int, default=16)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--walk", type=int, default=InvariantRequest.walk_steps)
    arguments.add_argument("--signal", type=float, default=InvariantRequest.signal)
    arguments.add_argument("--low-pass", default=InvariantRequest.low_pass, help="filters held constant, too")
    arguments.add_argument("--descent", type=int, default=0, help="concepts for Algorithm 1 of the thesis")
    arguments.add_argument("--descent-steps", type=int, default=512)
    arguments.add_argument("--descent-low-pass", default="multi-printed", help="filters in its loss, or none")
    arguments.add_argument("--no-guided", action="store_true", help="leave out the diversity of energy guidance")
    arguments.add_argument("--minutes", type=float, default=1e9, help="begin no further concept after these")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    atlas = Atlas.open(options.atlas)
    models, began = ModelBundle(atlas, options.device), time.perf_counter()
    drawn: dict[str, list[InvariantResult]] = {"walk": [], "descent": []}
    failed: dict[str, list[str]] = {"walk": [], "descent": []}
    guided = []
    for number, (concept, image) in enumerate(queries(atlas, options.concepts, options.seed)[options.skip :]):
        if time.perf_counter() - began > 60 * options.minutes:
            break
        walking = InvariantRequest(
            f"concept:{concept}", image, count=options.members, seed=options.seed, walk_steps=options.walk,
            signal=options.signal, low_pass=options.low_pass,
        )  # fmt: skip
        requests = {"walk": walking}
        if number < options.descent:
            requests["descent"] = replace(
                walking, method="descent", iterations=max(1, options.descent_steps // 32),
                low_pass=options.descent_low_pass,
            )  # fmt: skip
        for method, request in requests.items():
            try:
                drawn[method].append(find_members(models, request))
                one = summary(models, drawn[method][-1:])
                print(f"concept {concept}, image {image}, {method}: {one}", file=sys.stderr, flush=True)
            except BlindspotError as error:
                failed[method].append(f"concept {concept}, image {image}: {error}")
                print(failed[method][-1], file=sys.stderr, flush=True)
        if options.members > 1 and not options.no_guided:
            guided.append(guided_diversity(models, concept, image, min(options.members, 8), options.seed))
            print(f"concept {concept}, image {image}, guided: {guided[-1]:.4f}", file=sys.stderr, flush=True)
    table = {method: summary(models, results) for method, results in drawn.items() if results}
    report: dict[str, Any] = {"methods": table, "nothing found": {m: each for m, each in failed.items() if each}}
    if guided:
        report["guided diversity"] = round(float(np.mean(guided)), 4)
    if "descent" in table and "walk" in table:
        report["evaluations ratio"] = round(table["descent"]["evaluations"] / table["walk"]["evaluations"], 1)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    for method, row in table.items():
        print(f"{method:10s} " + ", ".join(f"{name} {value}" for name, value in row.items()))
    print({name: value for name, value in report.items() if name != "methods"})


if __name__ == "__main__":
    main()
