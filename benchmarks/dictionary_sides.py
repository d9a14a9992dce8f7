"""The two sides of the dictionary benchmark, and what one of them costs in a process of its own.

A side is `overcomplete` (0.3.0, the library of RA-SAE's authors), or ours choosing concepts in `bfloat16` or `float32`.
Both train an RA-SAE with as many candidates as concepts on the same random tokens. Overcomplete's step is its own
`train_sae` with a mean squared error. No concept is dead yet: AuxK costs nothing.
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
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests.engine.dictionary.published.oracles import oracle

SIDES = ("overcomplete", "bfloat16", "float32")
SIZES = ("dim", "concepts", "sparsity", "batch", "device", "threads")
TOY = (8, 16, 2, 64)


class Side(NamedTuple):
    """What can be timed."""

    step: Callable[[], object]
    encode: Callable[[], object]


def build(who: str, dim: int, concepts: int, sparsity: int, batch: int, device: str) -> Side:
    """A side on random tokens [batch, dim] and random candidates [concepts, dim]."""
    generator = torch.Generator().manual_seed(0)
    points, tokens = (torch.randn(rows, dim, generator=generator).to(device) for rows in (concepts, batch))
    return (_theirs if who == "overcomplete" else _ours)(who, points, tokens, sparsity)


def _ours(precision: str, points: Tensor, tokens: Tensor, sparsity: int) -> Side:
    from engine.dictionary.archetypal import RelaxedArchetypal
    from engine.dictionary.spec import TrainConfig
    from engine.dictionary.tokens import MemoryTokens
    from engine.dictionary.training import TrainingRun

    dictionary = RelaxedArchetypal(points.shape[1], len(points), sparsity).to(points.device)
    dictionary.reset(points, torch.Generator().manual_seed(0))
    config = TrainConfig(steps=10_000, batch=len(tokens), precision=precision, revival=0)
    source = MemoryTokens(tokens)
    run = TrainingRun(dictionary.train(), source, source, config)

    @torch.no_grad()
    def encode() -> object:
        return dictionary.encode(tokens)

    return Side(run.advance, encode)


def _theirs(_: str, points: Tensor, tokens: Tensor, sparsity: int) -> Side:
    (sae,) = oracle("overcomplete", "sae")
    concepts, dim = points.shape
    device = str(points.device)
    model = sae.RATopKSAE(dim, concepts, points=points, top_k=sparsity, device=device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def step() -> None:
        sae.train_sae(model, [tokens], squared_error, optimiser, nb_epochs=1, monitoring=0, device=device)

    @torch.no_grad()
    def encode() -> object:
        return model.eval().encode(tokens)

    return Side(step, encode)


def squared_error(x: Tensor, found: Tensor, *_: object) -> Tensor:
    """Overcomplete's loss signature."""
    return (x - found).square().mean()


def seconds_of(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, taken in turn after one that warms up: processor time, or the clock's on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for count in range(rounds + 1):
        for name, call in calls.items():
            begun = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if count:
                taken[name].append(clock() - begun)
    return {name: round(statistics.median(times), 5) for name, times in taken.items()}


def alone(
    who: str, options: argparse.Namespace, rounds: int = 0, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `measure` finds in a fresh process, or `{"failed": ...}` with the last line of its error."""
    sizes = [part for name in SIZES for part in (f"--{name}", str(getattr(options, name)))]
    command = [sys.executable, "-m", "benchmarks.dictionary_sides", who, *sizes, "--rounds", str(rounds)]
    child = subprocess.run(command, env=os.environ | (environment or {}), capture_output=True, text=True)
    if child.returncode:
        return {"failed": (child.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    return json.loads(child.stdout.splitlines()[-1])


def measure(who: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak megabytes of two steps, and, over `rounds`, seconds of a step and of an encoding.

    `peak_mb` is above what the process held before the model was built, when it had taken a step at toy size, so that
    libraries were loaded; `process_peak_mb` is in all. On a GPU they are what its allocator gave out and what it held.
    """
    build(who, *TOY, options.device).step()
    on_gpu = options.device != "cpu"
    before = 0.0 if on_gpu else resident_mb("VmRSS")
    side = build(who, options.dim, options.concepts, options.sparsity, options.batch, options.device)
    side.step()
    side.step()
    peak, held = (resident_mb("VmHWM"),) * 2
    if on_gpu:
        peak, held = torch.cuda.max_memory_allocated() / 2**20, torch.cuda.max_memory_reserved() / 2**20
    found = {"peak_mb": round(peak - before, 1), "process_peak_mb": round(held, 1)}
    if options.rounds:
        calls = {"step_seconds": side.step, "encode_seconds": side.encode}
        found |= seconds_of(calls, options.rounds, options.device)
    return found


def resident_mb(which: str) -> float:
    """`VmRSS`, or the high-water mark `VmHWM`, of this program; that of getrusage would include the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(which))


def add_sizes(arguments: argparse.ArgumentParser, **defaults: Any) -> None:
    """The arguments that say what is measured."""
    for name in (*SIZES, "rounds"):
        arguments.add_argument(f"--{name}", type=str if name == "device" else int, default=defaults.get(name))


def main() -> None:
    arguments = argparse.ArgumentParser(description=measure.__doc__)
    arguments.add_argument("who", choices=SIDES)
    add_sizes(arguments)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    try:
        print(json.dumps(measure(options.who, options)))
    except pytest.skip.Exception as reason:
        sys.exit(str(reason))


if __name__ == "__main__":
    main()
