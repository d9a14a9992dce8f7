"""How good are the demo's encoder and generators?

    python -m precompute benchmark probes --json

Linear probes are fitted on the encoder's features of real scenes that hold one thing. They are then read on other real
scenes (does the encoder know kind, colour and background?) and on pictures that a generator drew from the captions of
such scenes (did it draw what was asked?).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModel

from engine.files import DATA
from precompute.demo_world.encoder import normalise
from precompute.demo_world.optimisation import to_unit
from precompute.demo_world.scenes import Scene, corpus, draw

ATTRIBUTES = ("kind", "colour", "background")
LAYERS = 4
"""How many of the last blocks the probe reads, as in DINOv2's linear evaluation."""


@torch.no_grad()
def features(encoder: torch.nn.Module, images: Tensor, batch: int = 256) -> np.ndarray:
    """Class token and mean patch of the last four blocks, float32 `[n, 8 d]`.

    `encoder` is a transformers `Dinov2WithRegistersModel`; `images` are float `[n, 3, h, w]` in 0..1 at its own size.
    """
    rows = []
    for part in images.split(batch):
        states = encoder(normalise(part), output_hidden_states=True).hidden_states[-LAYERS:]
        patches = 1 + encoder.config.num_register_tokens
        rows.append(
            torch.cat([x for s in map(encoder.layernorm, states) for x in (s[:, 0], s[:, patches:].mean(1))], dim=1)
        )
    return torch.cat(rows).float().numpy()


def truth(scenes: Sequence[Scene], attribute: str) -> np.ndarray:
    """The attribute of scenes that hold one thing, str `[n]`."""
    if attribute == "background":
        return np.array([scene.background for scene in scenes])
    return np.array([getattr(scene.things[0], attribute) for scene in scenes])


class LinearProbe:
    """Multinomial logistic regression on standardised features, fitted by L-BFGS."""

    def __init__(self, rows: np.ndarray, names: np.ndarray, decay: float = 1e-4, iterations: int = 300):
        self.classes, targets = np.unique(names, return_inverse=True)
        features, wanted = torch.from_numpy(rows), torch.from_numpy(targets)
        self.centre, self.spread = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
        inputs = self._standardise(features)
        self.weight = torch.zeros(rows.shape[1], len(self.classes), requires_grad=True)
        self.bias = torch.zeros(len(self.classes), requires_grad=True)
        solver = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = cross_entropy(inputs @ self.weight + self.bias, wanted) + decay * self.weight.square().sum()
            value.backward()
            return value

        solver.step(loss)

    def _standardise(self, features: Tensor) -> Tensor:
        return (features - self.centre) / self.spread

    @torch.no_grad()
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest class of each row, `[n]`."""
        scores = self._standardise(torch.from_numpy(rows)) @ self.weight + self.bias
        return self.classes[scores.argmax(dim=1).numpy()]


class LinearProbes:
    """One linear probe per attribute, fitted on real scenes that hold one thing."""

    def __init__(self, rows: np.ndarray, scenes: Sequence[Scene]):
        self.models = {name: LinearProbe(rows, truth(scenes, name)) for name in ATTRIBUTES}

    def accuracy(self, rows: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of right answers per attribute, against the ground truth (or, for generated pictures, the prompt)."""
        return {name: float((probe.predict(rows) == truth(scenes, name)).mean()) for name, probe in self.models.items()}


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
