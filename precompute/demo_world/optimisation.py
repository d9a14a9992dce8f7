"""What every training of the demo shares: rendered scenes, and one loop with warm-up, averaging and exact resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.devices import pick_device
from engine.files import write_whole
from precompute.demo_world.scenes import Scene, draw

DEVICE = pick_device()
"""Where to train: the first GPU if there is one."""
Network = TypeVar("Network", bound=nn.Module)
IMAGE_SIZE = 64


@dataclass(frozen=True)
class RenderedScenes:
    """Scenes and what they look like."""

    pixels: np.ndarray
    """uint8 `[n, 64, 64, 3]`."""
    scenes: list[Scene]

    def batch(self, indices: Tensor) -> Tensor:
        """float32 `[len(indices), 3, 64, 64]` in 0..1."""
        return to_unit(self.pixels[indices.numpy()])


def save_image_settings(folder: Path, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Write how a model's pictures are prepared: squeezed to `size`, minus `mean`, over `std`."""
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def to_unit(pixels: np.ndarray) -> Tensor:
    """uint8 `[n, h, w, 3]` as float32 `[n, 3, h, w]` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(255)


def rendered(scenes: Sequence[Scene], name: str, folder: Path) -> RenderedScenes:
    """Return the pictures of scenes, drawn by all cores the first time and read from `folder` afterwards."""
    pixels_file, truth_file = folder / f"{name}.npy", folder / f"{name}.json"
    truth = json.dumps([scene.to_dict() for scene in scenes])
    if not (truth_file.exists() and truth_file.read_text() == truth):
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            pixels = np.stack(list(pool.map(draw, scenes, chunksize=64)))
        np.save(pixels_file, pixels)
        truth_file.write_text(truth)
    return RenderedScenes(np.load(pixels_file, mmap_mode="r"), list(scenes))


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train."""

    steps: int
    batch: int
    learning_rate: float
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises linearly; it then falls to a hundredth as a cosine."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    averaging: float | None = None
    """Decay of the exponential moving average of the weights that is returned; None returns the last weights."""

    def rate(self, step: int) -> float:
        """The learning rate at `step`."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        through = (step - rising) / max(1, self.steps - rising)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, through))))


def half() -> torch.autocast:
    """Return bf16 autocast on the training device where that is faster than float32."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=_computes_in_half())


@lru_cache(maxsize=1)
def _computes_in_half() -> bool:
    """A CPU without instructions for bf16 takes ten times as long in it, one with them a third: time a product."""
    if DEVICE.type != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            one @ one
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one training step; it depends on seed and step alone, so a resumed run sees the same."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def optimise(
    model: Network,
    loss: Callable[[int, torch.Generator], Tensor],
    budget: Budget,
    checkpoint: Path,
    *,
    seed: int = 0,
    say: Callable[[str], None] = print,
    snapshots: tuple[int, ...] = (),
) -> Network:
    """Minimise `loss(step, generator)` over the parameters of `model` and return it, or its moving average.

    `checkpoint` is written every hundred steps (atomically, tensors only) and resumed from when it exists. The weights
    that would be returned after each of the steps in `snapshots` are kept beside it as `<name>.<step>.pt`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, budget.learning_rate, (0.9, 0.98), weight_decay=budget.weight_decay)
    average = deepcopy(model).requires_grad_(False) if budget.averaging else None
    start = _resume(checkpoint, model, optimiser, average)
    running, clock = None, time.perf_counter()
    for step in range(start, budget.steps):
        for group in optimiser.param_groups:
            group["lr"] = budget.rate(step)
        value = loss(step, step_generator(seed, step))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, budget.clip)
        optimiser.step()
        if average is not None and budget.averaging:
            _follow(average, model, min(budget.averaging, (step + 1) / (step + 10)))
        running = value.item() if running is None else 0.98 * running + 0.02 * value.item()
        done = step + 1
        if done in snapshots:
            torch.save((average or model).state_dict(), checkpoint.with_suffix(f".{done}.pt"))
        if done % 100 == 0 or done == budget.steps:
            rate = (time.perf_counter() - clock) / (done - start)
            left = rate * (budget.steps - done) / 60
            say(f"{checkpoint.stem} {done}/{budget.steps}  loss {running:.4f}  {rate:.2f} s/step  {left:.0f} min left")
            _save(checkpoint, done, model, optimiser, average)
    return average or model


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)


def _save(path: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, average: nn.Module | None) -> None:
    state = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    if average is not None:
        state["average"] = average.state_dict()
    write_whole(path, lambda partial: torch.save(state, partial))


def _resume(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, average: nn.Module | None) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=DEVICE)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    if average is not None:
        average.load_state_dict(state["average"])
    return state["step"]
