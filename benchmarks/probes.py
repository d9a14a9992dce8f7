"""How good are the demo's encoder and generators?

    python -m precompute benchmark probes --json

Linear probes are fitted on the encoder's features of real scenes that hold one thing. They are then read on other real
scenes (does the encoder know kind, colour and background?) and on pictures that a generator drew from the captions of
such scenes (did it draw what was asked?).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from transformers import AutoModel

from engine.files import DATA
from precompute.tabletop.dataset import to_unit
from precompute.tabletop.probes import LinearProbes, features
from precompute.tabletop.scenes import corpus, draw


def drawn(scenes: list) -> torch.Tensor:
    """Real pictures of scenes, float `[n, 3, 64, 64]`."""
    return to_unit(np.stack([draw(scene) for scene in scenes]))


def generated(folder: Path, captions: list[str], steps: int, guidance: float, batch: int = 24) -> torch.Tensor:
    """Pictures a pipeline draws from captions, image i from seed i, float `[n, 3, 64, 64]`."""
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(captions), batch):
        prompts = captions[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + index) for index in range(len(prompts))]
        settings = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": seeds, "output_type": "np"}
        parts.append(pipeline(prompts, height=64, width=64, **settings).images)
    return to_unit((np.concatenate(parts) * 255).round().astype(np.uint8))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--demo", type=Path, default=DATA / "demo")
    arguments.add_argument("--models", nargs="*", default=["base", "base-early"])
    arguments.add_argument("--real", type=int, default=20_000, help="real scenes the probes are fitted on")
    arguments.add_argument("--samples", type=int, default=480)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--guidance", type=float, default=3.0)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    encoder = AutoModel.from_pretrained(options.demo / "encoder", dtype=torch.float32).eval()
    fitting, held_out = corpus(options.real, 101, counts=(1,)), corpus(1500, 102, counts=(1,))
    asked = corpus(options.samples, 103, counts=(1,))
    probes = LinearProbes(features(encoder, drawn(fitting)), fitting)
    report = {"real": {"images": len(held_out), **probes.accuracy(features(encoder, drawn(held_out)), held_out)}}
    for name in options.models:
        images = generated(
            options.demo / "generators" / name, [scene.caption for scene in asked], options.steps, options.guidance
        )
        report[name] = {"images": len(asked), **probes.accuracy(features(encoder, images), asked)}
    print(json.dumps(report, indent=2) if options.json else report)


if __name__ == "__main__":
    main()
