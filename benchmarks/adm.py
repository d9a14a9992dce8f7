"""How long and how much memory does a drawing take at the paper's sizes?

    python -m precompute benchmark adm --json

arXiv:2605.17504 draws with an ADM of 256 pixels, 1000 steps, one image at a time, in float32 and with gradients
through the denoiser: 96 s and 14.6 GB an image on an H100. Here that, and what this project does instead, in one run on
random weights (552,814,086 of the ADM, DINOv3 ConvNeXt-L, a transcoder of 16,384 concepts): fewer steps, bfloat16, and
gradients through the denoiser with recomputed activations, or through the predicted clean image alone; as plain
EnergyDPS ("one state") and as the app draws by default, where a sample begins as several states. Samples are guided one
by one, so that each is the same image in any batch, or "together", all of a batch in one go.

The printed way is timed over a few steps after one to warm up, which all cost the same, and scaled to its number of
steps, unless `--timed 0`; ours are drawn to the end. Without CUDA the same is measured at reduced size on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from benchmarks.scale import highest, resident
from engine.dictionary.transcoder import Transcoder
from engine.jobs import Cancelled
from engine.priors.adm import ADMConfig, ADMPrior, build_adm
from engine.samplers.base import StepEvent
from engine.samplers.candidates import CandidateSelection
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.generation import GenerationRequest
from engine.samplers.registry import LIGHT_CANDIDATES, LIGHT_INTERVAL
from engine.samplers.scores import ConceptScore
from engine.vision.encoder import Encoder
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec

PRINTED_STEPS = 1000
SPARSITY = 32


@dataclass(frozen=True)
class World:
    """Sizes of the networks."""

    adm: ADMConfig
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    hook: str
    concepts: int


PAPER = World(ADMConfig(), (3, 3, 27, 3), (192, 384, 768, 1536), "model.stages.2.layers.20", 16_384)
REDUCED = World(
    ADMConfig(image_size=64, channels=64, multipliers=(1, 2, 2, 4), attention=(2, 3)),
    (2, 2, 4, 2),
    (32, 64, 128, 256),
    "model.stages.2.layers.3",
    1024,
)


@dataclass(frozen=True)
class Way:
    """One way of drawing."""

    steps: int
    batch: int
    dtype: torch.dtype
    guidance: str
    gradient: str
    strength: float
    checkpointing: bool = False
    states: int = 1
    every: int = 1
    together: int | None = 1


class Watch:
    """Notes the time after each step, and stops after some of them."""

    def __init__(self, enough: int) -> None:
        self.enough, self.marks = enough, [time.perf_counter()]

    def __call__(self, event: StepEvent) -> bool:
        if event.scores.is_cuda:
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        return not self.enough or len(self.marks) < self.enough + 2

    def whole(self) -> float:
        """Seconds of all steps."""
        return self.marks[-1] - self.marks[0]

    def step(self) -> float:
        """Seconds of a step, the first one left out."""
        return statistics.median(b - a for a, b in zip(self.marks[1:-1], self.marks[2:], strict=True))


def instruments(world: World, device: str, dtype: torch.dtype) -> tuple[ADMPrior, ConceptScore]:
    """A prior and the score of one concept, with random weights."""
    torch.manual_seed(0)
    prior = ADMPrior(build_adm(world.adm).to(device, dtype))
    size = world.adm.image_size
    config = DINOv3ConvNextConfig(image_size=size, depths=list(world.depths), hidden_sizes=list(world.widths))
    spec = EncoderSpec(
        id="random",
        revision=None,
        layer=None,
        image_size=size,
        patch=0,
        grid=(0, 0),
        prefix_tokens=0,
        dim=0,
        resize="square",
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        hook=world.hook,
    )
    encoder = Encoder(DINOv3ConvNextModel(config).to(device, dtype), spec)
    found = encoder.spec
    dictionary = Transcoder(found.dim, world.concepts, SPARSITY, found.grid).to(device).requires_grad_(False)
    return prior, ConceptScore(encoder, dictionary, [0])


def measure(world: World, way: Way, device: str, timed: int) -> dict[str, float]:
    """Seconds and gigabytes per sample, in a process of its own.

    Memory on a GPU counts the weights too, once for the whole batch; on a CPU it is what comes on top of them.
    """
    prior, score = instruments(world, device, way.dtype)
    sampler = EnergyDPS(
        prior, way.steps, way.strength, way.gradient, way.guidance, way.every, checkpointing=way.checkpointing,
        selection=CandidateSelection(1.0, way.states) if way.states > 1 else None, together=way.together,
    )  # fmt: skip
    scaled = timed and way.steps == PRINTED_STEPS
    with contextlib.suppress(Cancelled):
        sampler.sample(score, way.batch, on_step=Watch(1))
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        before = resident()
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    watch = Watch(timed if scaled else 0)
    with contextlib.suppress(Cancelled):
        sampler.sample(score, way.batch, on_step=watch)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else highest() - before
    return {
        "seconds_a_sample": round((watch.step() * way.steps if scaled else watch.whole()) / way.batch, 2),
        "peak_gb" if cuda else "peak_gb_beyond_weights": round(peak, 3),
        "gb_a_sample": round(peak / way.batch, 3),
        "steps": way.steps,
        "batch": way.batch,
        "states": way.states,
        "together": way.together or way.batch,
    }


def ways(steps: int, batch: int) -> dict[str, Way]:
    """Algorithm 1 as printed, and ours."""
    ours = {"steps": steps, "batch": batch, "dtype": torch.bfloat16, "gradient": "eps", "strength": 0.3}
    return {
        "as printed": Way(PRINTED_STEPS, 1, torch.float32, "full", "raw", 1e-3),
        "one state": Way(guidance="full", **ours),
        "one state, checkpointing": Way(guidance="full", checkpointing=True, **ours),
        "one state, light": Way(guidance="light", **ours),
        "default": Way(guidance="full", states=GenerationRequest.candidates, **ours),
        "default, together": Way(guidance="full", states=GenerationRequest.candidates, together=None, **ours),
        "default, light": Way(
            guidance="light",
            states=math.ceil(GenerationRequest.candidates / LIGHT_CANDIDATES),
            every=LIGHT_INTERVAL,
            **ours,
        ),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--steps", type=int, default=50)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--timed", type=int, default=5, help="steps of the printed way that are timed; 0: all")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    device, world = options.device, PAPER
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("CUDA is absent: the same ratio is measured at reduced size on the CPU.", file=sys.stderr)
        device = "cpu"
    if device == "cpu":
        world = REDUCED
    found = {}
    for name, way in ways(options.steps, options.batch).items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(measure, (world, way, device, options.timed))
    printed = found["as printed"]["seconds_a_sample"]
    report = {
        "device": torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads",
        "size": "paper" if world is PAPER else "reduced",
        "adm_parameters": sum(parameter.numel() for parameter in build_adm(world.adm).parameters()),
        "ways": found,
        "times_faster": {name: round(printed / row["seconds_a_sample"], 1) for name, row in found.items()},
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
