"""How fast and how good are the dictionaries? `python -m tests.benchmarks.dictionary --json`

Speed: a whole training step and an encoding of RA-SAE beside those of overcomplete 0.3.0 (its authors' library), in
turn, same shapes, on CPU by default. Overcomplete's step is its own `train_sae` with a mean squared error. Seconds are
processor time, which a busy machine distorts least; on one thread of an idle one they are those of the clock. Memory is
the peak above a process that took the same step at toy size, with an allocator that returns what is freed
(MALLOC_MMAP_THRESHOLD_) and, as `peak_mb_default`, with glibc's defaults. No concept is dead yet: AuxK costs nothing.

Quality: TopK, BatchTopK and RA-SAE on DINOv2 tokens of CIFAR-10 photographs (`tests.benchmarks.photographs`), three
seeds each, R2 and L0 on photographs that were not trained on. The candidates of RA-SAE are k-means centroids of the
training tokens and the same for all seeds, as its authors have it; the seed decides the shuffle of the tokens, and for
the others the first atoms as well. So its stability is one of construction; `archetypal-own` gives every seed a k-means
of its own and shows how much of it is the data's.

Overcomplete is found as tests/engine/dictionary/published/oracles.py describes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.dictionary import RelaxedArchetypal, TrainConfig, archetypal, evaluate, fit
from engine.dictionary.processes import Processes
from engine.dictionary.run import TrainingRun
from engine.dictionary.stability import stability
from engine.dictionary.tokens import MemoryTokens
from tests.benchmarks.photographs import photograph_tokens
from tests.engine.dictionary.published.oracles import oracle

OWN_CANDIDATES = "archetypal-own"
Step = Callable[[], object]


def our_step(dim: int, concepts: int, sparsity: int, batch: int, precision: str, device: str) -> tuple[Step, Any]:
    """A training step of ours and its dictionary; tokens and candidates are normal random numbers."""
    generator = torch.Generator().manual_seed(0)
    dictionary = RelaxedArchetypal(dim, concepts, sparsity)
    dictionary.reset(torch.randn(concepts, dim, generator=generator), generator)
    tokens = MemoryTokens(torch.randn(batch, dim, generator=generator).to(device))
    config = TrainConfig(steps=10_000, batch_size=batch, precision=precision, dead_after=2**40)
    run = TrainingRun(dictionary.to(device).train(), tokens, tokens, config, Processes())
    return run.advance, dictionary


def their_step(dim: int, concepts: int, sparsity: int, batch: int, device: str) -> tuple[Step, Any]:
    """The same of overcomplete."""
    (sae,) = oracle("overcomplete", "sae")
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(concepts, dim, generator=generator).to(device)
    tokens = torch.randn(batch, dim, generator=generator).to(device)
    model = sae.RATopKSAE(dim, concepts, points=points, top_k=sparsity, device=device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def step() -> None:
        sae.train_sae(model, [tokens], squared_error, optimiser, nb_epochs=1, monitoring=0, device=device)

    return step, model


def squared_error(x: Tensor, found: Tensor, *_: object) -> Tensor:
    """Overcomplete's loss signature."""
    return (x - found).square().mean()


def seconds_of(steps: dict[str, Step], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, taken in turn after one that warms up: processor time, or the clock's on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for count in range(rounds + 1):
        for name, step in steps.items():
            begun = clock()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            if count:
                taken[name].append(clock() - begun)
    return {name: round(statistics.median(times), 4) for name, times in taken.items()}


def peak_mb(who: str, options: argparse.Namespace, environment: dict[str, str]) -> float:
    """Peak megabytes of two steps, measured in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.dictionary", "--peak-of", who, *sizes(options)]
    child = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    return float(child.stdout.split()[-1])


def sizes(options: argparse.Namespace) -> list[str]:
    """The arguments that a child needs."""
    names = ("dim", "concepts", "sparsity", "batch", "threads", "device")
    return [part for name in names for part in (f"--{name}", str(getattr(options, name)))]


def measure_peak(who: str, options: argparse.Namespace) -> float:
    """What `peak_mb` runs in the child."""

    def build(dim: int, concepts: int, sparsity: int, batch: int) -> Step:
        if who == "overcomplete":
            return their_step(dim, concepts, sparsity, batch, options.device)[0]
        return our_step(dim, concepts, sparsity, batch, who, options.device)[0]

    build(8, 16, 2, 64)()
    on_gpu = options.device != "cpu"
    before = 0 if on_gpu else resident_mb()
    step = build(options.dim, options.concepts, options.sparsity, options.batch)
    step()
    step()
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_resident_mb()
    return round(peak - before, 1)


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_resident_mb() -> float:
    """High-water mark of this program; that of getrusage would include the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Training step, encoding and memory of ours, choosing concepts in bfloat16 and in float32, and of overcomplete."""
    shape = (options.dim, options.concepts, options.sparsity, options.batch)
    theirs, model = their_step(*shape, options.device)
    steps, ours = {"overcomplete": theirs}, None
    for precision in ("bfloat16", "float32"):
        steps[precision], ours = our_step(*shape, precision, options.device)
    step = seconds_of(steps, options.rounds, options.device)
    model.eval()
    ours.eval()
    x = torch.randn(options.batch, options.dim, device=options.device)
    with torch.no_grad():
        encode = seconds_of(
            {"overcomplete": lambda: model.encode(x), "ours": lambda: ours.encode(x)}, options.rounds, options.device
        )
    peaks = {}
    for key, environment in {
        "peak_mb": {"MALLOC_MMAP_THRESHOLD_": str(2**20)},
        "peak_mb_default": {},
    }.items():
        peaks[key] = {who: peak_mb(who, options, environment) for who in steps}
    found = {
        "threads": options.threads,
        "shape": dict(zip(("dim", "concepts", "sparsity", "batch"), shape, strict=True)),
    }
    for who in ("bfloat16", "float32"):
        found[who] = {
            "step_seconds": step[who],
            "times_faster": round(step["overcomplete"] / step[who], 2),
            "tokens_per_second": round(options.batch / step[who]),
            **{f"{key}_share": round(peak[who] / peak["overcomplete"], 3) for key, peak in peaks.items()},
            **{key: peak[who] for key, peak in peaks.items()},
        }
    found["overcomplete"] = {
        "step_seconds": step["overcomplete"],
        **{key: peak["overcomplete"] for key, peak in peaks.items()},
    }
    encode["times_faster"] = round(encode["overcomplete"] / encode["ours"], 2)
    return found | {"encode_seconds": encode}


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """R2, L0 and dead share on held-out photographs, the mean over seeds, and the stability over seeds."""
    images = photograph_tokens(options.images, options.layer)
    held_out = options.images // 6
    training, fresh = images[held_out:].flatten(0, 1), images[:held_out].flatten(0, 1).float()
    report: dict[str, Any] = {"training_tokens": len(training), "held_out_tokens": len(fresh)}
    for kind in options.kinds:
        found = []
        for seed in range(options.seeds):
            config = TrainConfig(epochs=options.epochs, batch_size=options.tokens_per_step, seed=seed)
            archetypal.CANDIDATE_SEED = seed if kind == OWN_CANDIDATES else 0
            dictionary, trained = fit(
                training,
                kind.removesuffix("-own"),
                options.quality_concepts,
                options.sparsity,
                config=config,
                device=options.device,
            )
            found.append((dictionary.atoms(), evaluate(dictionary, fresh), trained.dead_share, trained.seconds))
            print(kind, seed, *found[-1][1:], file=sys.stderr, flush=True)
        report[kind] = {
            "r2": round(statistics.mean(each.r2 for _, each, _, _ in found), 4),
            "l0": round(statistics.mean(each.l0 for _, each, _, _ in found), 3),
            "dead_share": round(statistics.mean(dead for _, _, dead, _ in found), 4),
            "stability": round(float(stability([atoms for atoms, *_ in found]).mean), 4),
        }
    return report


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--parts", nargs="*", choices=["speed", "quality"], default=["speed", "quality"])
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--dim", type=int, default=384)
    arguments.add_argument("--concepts", type=int, default=4096)
    arguments.add_argument("--sparsity", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=4096)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--images", type=int, default=600)
    arguments.add_argument("--layer", type=int, default=8)
    arguments.add_argument("--kinds", nargs="*", default=["topk", "batchtopk", "archetypal", OWN_CANDIDATES])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=float, default=6)
    arguments.add_argument("--tokens-per-step", type=int, default=2048)
    arguments.add_argument("--quality-concepts", type=int, default=1024)
    arguments.add_argument("--peak-of", choices=["overcomplete", "bfloat16", "float32"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    try:
        if options.peak_of:
            print(measure_peak(options.peak_of, options))
            return
        report = {part: {"speed": speed, "quality": quality}[part](options) for part in options.parts}
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))
    print(json.dumps(report, indent=2) if options.json else report)


if __name__ == "__main__":
    main()
