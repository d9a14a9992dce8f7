"""How fast and how good are the dictionaries?

    python -m precompute benchmark dictionary --json

Speed: a whole training step and an encoding of RA-SAE beside those of overcomplete 0.3.0 (`dictionary_sides`), in
turn, same shapes, on CPU by default. Seconds are processor time, which a busy machine distorts least; on one thread of
an idle one they are those of the clock. Peak memory is that of two steps in a fresh process: `peak_mb` above what it
held before the model was built, `process_peak_mb` in all, both with the environment's allocator; those called
`returned` are with one that gives back what is freed (MALLOC_MMAP_THRESHOLD_).

GPU: `--gpu` takes d = 768 and 32,000 concepts on CUDA instead: tokens per second and memory of each side in a process
of its own. `--gpu --device cpu --concepts 256` walks the same path without one.

Quality: TopK, BatchTopK and RA-SAE on DINOv2 tokens of CIFAR-10 photographs (`benchmarks.photographs`), three
seeds each, R2 and L0 on photographs that were not trained on. The candidates of RA-SAE are k-means centroids of the
training tokens and the same for all seeds, as its authors have it; the seed decides the shuffle of the tokens, and for
the others the first atoms as well. So its stability is one of construction; `archetypal-own` gives every seed a k-means
of its own and shows how much of it is the data's.

Overcomplete is found as tests/engine/dictionary/published/oracles.py describes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

import pytest
import torch

from benchmarks.dictionary_sides import SIDES, add_sizes, alone, build, seconds_of
from benchmarks.photographs import photograph_tokens
from engine.dictionary import archetypal
from engine.dictionary.evaluation import evaluate
from engine.dictionary.fitting import fit
from engine.dictionary.geometry import stability
from engine.dictionary.spec import DictionarySpec

SHAPE = ("dim", "concepts", "sparsity", "batch")
CPU_SIZES = {"dim": 384, "concepts": 4096, "device": "cpu"}
GPU_SIZES = {"dim": 768, "concepts": 32_000, "device": "cuda"}
OWN_CANDIDATES = "archetypal-own"


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Training step, encoding and memory of ours, choosing concepts in bfloat16 and in float32, and of overcomplete."""
    sides = {who: build(who, *(getattr(options, name) for name in SHAPE), options.device) for who in SIDES}
    step = seconds_of({who: side.step for who, side in sides.items()}, options.rounds, options.device)
    encode = seconds_of(
        {"overcomplete": sides["overcomplete"].encode, "ours": sides["float32"].encode}, options.rounds, options.device
    )
    del sides
    found = {who: {"step_seconds": step[who]} | alone(who, options) for who in SIDES}
    for who in SIDES:
        returned = alone(who, options, environment={"MALLOC_MMAP_THRESHOLD_": str(2**20)})
        found[who] |= {f"{name}_returned": value for name, value in returned.items()}
    encode["times_faster"] = round(encode["overcomplete"] / encode["ours"], 2)
    return _compared(found, options) | {"encode_seconds": encode}


def on_gpu(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second and memory of each side in a process of its own."""
    return _compared({who: alone(who, options, options.rounds) for who in SIDES}, options)


def _compared(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """What was found of each side, and ours as ratios of overcomplete's."""
    theirs = found["overcomplete"]
    for who, each in found.items():
        if "step_seconds" in each:
            each["tokens_per_second"] = round(options.batch / each["step_seconds"])
        if who == "overcomplete":
            continue
        for name in ("step_seconds", "encode_seconds"):
            if name in each and name in theirs:
                each[name.replace("seconds", "times_faster")] = round(theirs[name] / each[name], 2)
        shares = [name for name in each if "peak_mb" in name and name in theirs]
        each |= {name.replace("mb", "share"): round(each[name] / theirs[name], 3) for name in shares}
    shape = {name: getattr(options, name) for name in (*SHAPE, "threads", "device")}
    return {"shape": shape} | found


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """R2, L0 and dead share on held-out photographs, the mean over seeds, and the stability over seeds."""
    images = photograph_tokens(options.images, options.layer)
    held_out = options.images // 6
    training, fresh = images[held_out:].flatten(0, 1), images[:held_out].flatten(0, 1).float()
    report: dict[str, Any] = {"training_tokens": len(training), "held_out_tokens": len(fresh)}
    for kind in options.kinds:
        found = []
        for seed in range(options.seeds):
            archetypal.CANDIDATE_SEED = seed if kind == OWN_CANDIDATES else 0
            spec = DictionarySpec(
                kind="rasae" if kind.startswith("archetypal") else kind,
                concepts=options.quality_concepts,
                sparsity=options.sparsity,
                epochs=options.epochs,
                batch=options.tokens_per_step,
                seed=seed,
                device=options.device,
            )
            dictionary, trained = fit(training, spec)
            usage = evaluate(dictionary, fresh)
            found.append((dictionary.atoms(), usage, trained.dead_share))
            print(kind, seed, usage.r2, usage.l0, trained.dead_share, trained.seconds, file=sys.stderr, flush=True)
        report[kind] = {
            "r2": round(statistics.mean(each.r2 for _, each, _ in found), 4),
            "l0": round(statistics.mean(each.l0 for _, each, _ in found), 3),
            "dead_share": round(statistics.mean(dead for _, _, dead in found), 4),
            "stability": round(float(stability([atoms for atoms, *_ in found]).mean), 4),
        }
    return report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--gpu", action="store_true", help="d = 768 and 32,000 concepts on CUDA, and nothing else")
    arguments.add_argument("--parts", nargs="*", choices=["speed", "quality"], default=["speed", "quality"])
    add_sizes(arguments, sparsity=5, batch=4096, threads=1, rounds=7)
    arguments.add_argument("--images", type=int, default=600)
    arguments.add_argument("--layer", type=int, default=8)
    arguments.add_argument("--kinds", nargs="*", default=["topk", "batchtopk", "archetypal", OWN_CANDIDATES])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=float, default=6)
    arguments.add_argument("--tokens-per-step", type=int, default=2048)
    arguments.add_argument("--quality-concepts", type=int, default=1024)
    options = arguments.parse_args()
    for name, value in (GPU_SIZES if options.gpu else CPU_SIZES).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("No CUDA device is here, so there is nothing to measure; --device cpu --concepts 256 walks the path.")
    torch.set_num_threads(options.threads)
    measures = {"gpu": on_gpu} if options.gpu else {part: MEASURES[part] for part in options.parts}
    try:
        report = {part: measure(options) for part, measure in measures.items()}
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    print(json.dumps(report, indent=2) if options.json else report)


MEASURES = {"speed": speed, "quality": quality}

if __name__ == "__main__":
    main()
