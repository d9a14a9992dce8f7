"""How good are the demo's encoder and generators?

    python -m precompute benchmark probes --json

Linear probes are fitted on the encoder's features of real scenes that hold one thing. They are then read on other real
scenes (does the encoder know kind, colour and background?) and on pictures that a generator drew from the captions of
such scenes (did it draw what was asked?). Samples of the prior, drawn without a prompt, are set beside real scenes:
how sure the probes are of what they see, and how diverse the pictures are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.files import DATA
from engine.samplers.metrics import diversity, embed
from engine.vision.encoder import Encoder
from engine.vision.preprocess import prepare
from precompute.demo_world.optimisation import to_unit
from precompute.demo_world.scenes import Scene, corpus, draw

ATTRIBUTES = ("kind", "colour", "background")
LAYERS = 4
"""How many of the last blocks the probe reads, as in DINOv2's linear evaluation."""


@torch.no_grad()
def features(encoder: Encoder, images: Tensor, batch: int = 64) -> np.ndarray:
    """Class token and mean patch of the last four blocks, float32 `[n, 8 d]`, of images `[n, 3, h, w]` in 0..1."""
    rows, patches = [], encoder.spec.prefix_tokens
    for part in images.split(batch):
        states = encoder.backbone(prepare(part, encoder.spec), output_hidden_states=True).hidden_states[-LAYERS:]
        normed = map(encoder.backbone.layernorm, states)
        rows.append(torch.cat([x for s in normed for x in (s[:, 0], s[:, patches:].mean(1))], dim=1))
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
    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Of each class, `[n, classes]`."""
        return (self._standardise(torch.from_numpy(rows)) @ self.weight + self.bias).softmax(dim=1).numpy()

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest class of each row, `[n]`."""
        return self.classes[self.probabilities(rows).argmax(axis=1)]


class LinearProbes:
    """One linear probe per attribute, fitted on real scenes that hold one thing."""

    def __init__(self, rows: np.ndarray, scenes: Sequence[Scene]):
        self.models = {name: LinearProbe(rows, truth(scenes, name)) for name in ATTRIBUTES}

    def accuracy(self, rows: np.ndarray, scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of right answers per attribute, against the ground truth (or, for generated pictures, the prompt)."""
        return {name: float((probe.predict(rows) == truth(scenes, name)).mean()) for name, probe in self.models.items()}

    def confidence(self, rows: np.ndarray) -> dict[str, float]:
        """Mean probability of the likeliest class per attribute: how recognisable unasked pictures are."""
        return {name: float(probe.probabilities(rows).max(axis=1).mean()) for name, probe in self.models.items()}


def compared(probes: LinearProbes, encoder: Encoder, prior: Tensor, real: Tensor) -> dict[str, Any]:
    """Samples of the prior beside real scenes: the probes' confidence, and the mean cosine distance of two images."""
    found: dict[str, Any] = {"images": len(prior)}
    for name, images in (("real", real), ("prior", prior)):
        found[name] = {
            **probes.confidence(features(encoder, images)), "diversity": float(diversity(embed(encoder, images)))
        }  # fmt: skip
    found["ratio"] = {name: round(found["prior"][name] / value, 3) for name, value in found["real"].items()}
    return found


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
    arguments.add_argument("--priors", nargs="*", default=["prior"], help="models to draw from without a prompt")
    arguments.add_argument("--real", type=int, default=20_000, help="real scenes the probes are fitted on")
    arguments.add_argument("--samples", type=int, default=480)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--guidance", type=float, default=3.0)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    encoder = Encoder.from_pretrained(str(options.demo / "dinov2"), device="cpu")
    fitting, held_out = corpus(options.real, 101, counts=(1,)), corpus(1500, 102, counts=(1,))
    asked = corpus(options.samples, 103, counts=(1,))
    probes = LinearProbes(features(encoder, drawn(fitting)), fitting)
    report = {"real": {"images": len(held_out), **probes.accuracy(features(encoder, drawn(held_out)), held_out)}}
    for name in options.models:
        images = generated(
            options.demo / "generators" / name, [scene.caption for scene in asked], options.steps, options.guidance
        )
        report[name] = {"images": len(asked), **probes.accuracy(features(encoder, images), asked)}
    scenes = drawn(corpus(options.samples, 104))
    for name in options.priors:
        folder = options.demo / "generators" / name
        samples = generated(folder, [""] * options.samples, options.steps, 1.0)
        report[f"{name}, no prompt"] = compared(probes, encoder, samples, scenes)
    print(json.dumps(report, indent=2) if options.json else report)


if __name__ == "__main__":
    main()
