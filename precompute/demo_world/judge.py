"""The demo's judge: a small ResNet that says which kinds, colours and surfaces a picture shows.

It is trained on rendered scenes and their ground truth, so it reads other features than the encoder whose concepts are
drawn. Half of its pictures have been through the generators' autoencoder with a little noise on the latents, and one in
eight shows nothing that could be recognised, so that it can judge generated pictures: it must neither fail on the
decoder's softness nor see toys in texture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from precompute.demo_world.generators import encode_latents
from precompute.demo_world.optimisation import DEVICE, Budget, RenderedScenes, optimise, save_image_settings, to_unit
from precompute.demo_world.scenes import BACKGROUNDS, COLOURS, KINDS, Scene, draw

LABELS: tuple[str, ...] = tuple(
    f"{attribute}: {value}"
    for attribute, values in (("kind", KINDS), ("colour", tuple(COLOURS)), ("background", BACKGROUNDS))
    for value in values
)
OF_KIND = len(KINDS)
"""Labels of kinds; they come first."""
INPUT_SIZE = 96
"""Side that pictures are enlarged to: the first layers reduce by four."""
BUDGET = Budget(steps=2400, batch=64, learning_rate=2.5e-3, weight_decay=0.02, averaging=0.997)
REFINING = Budget(steps=600, batch=64, learning_rate=8e-4, weight_decay=0.02, averaging=0.99)
"""The second stage, with blobs and plain shapes among the pictures that show nothing."""
NOTHING = 8
"""Pictures of a batch without anything to recognise; in the second stage as many blobs and shapes join them."""
LEAST_THRESHOLD = 0.15
"""Probability below which no label counts as seen, however well it would separate the scenes."""
LATENT_NOISE = 0.3
"""Largest standard deviation of the noise on latents of unit variance."""


class Labelled(NamedTuple):
    """Pictures and what is true of them."""

    images: Tensor
    """float32 `[n, 3, 64, 64]` in 0..1."""
    truth: Tensor
    """float32 `[n, labels]`, 1 where the picture shows it."""
    known: Tensor
    """float32 `[n, labels]`, 0 where the question makes no sense."""


def truth_of(scenes: Sequence[Scene]) -> Tensor:
    """Which of `LABELS` hold of each scene, float32 `[scenes, labels]`."""
    column = {label: index for index, label in enumerate(LABELS)}
    table = torch.zeros(len(scenes), len(LABELS))
    for row, scene in enumerate(scenes):
        table[row, column[f"background: {scene.background}"]] = 1
        for thing in scene.things:
            table[row, column[f"kind: {thing.kind}"]] = 1
            table[row, column[f"colour: {thing.colour}"]] = 1
    return table


def build_judge() -> ResNetForImageClassification:
    """An untrained judge for `LABELS`."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[24, 64, 96, 128],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return ResNetForImageClassification(config)


@torch.no_grad()
def through_autoencoder(vae: Any, pixels: np.ndarray, file: Path, seed: int) -> np.ndarray:
    """Return pictures as the autoencoder decodes them, uint8 `[n, 64, 64, 3]`, kept in `file` once they are made.

    The latents of each have noise of their own strength, up to `LATENT_NOISE`.
    """
    if not file.exists():
        generator, parts = torch.Generator().manual_seed(seed), []
        for start in range(0, len(pixels), 128):
            latents = encode_latents(vae, to_unit(pixels[start : start + 128]))
            spread = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
            latents = latents + spread * torch.randn(latents.shape, generator=generator)
            images = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1) / 2 + 0.5
            parts.append((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
        np.save(file, np.concatenate(parts))
    return np.load(file, mmap_mode="r")


def train_judge(
    pictures: RenderedScenes,
    decoded: np.ndarray,
    folder: Path,
    budgets: tuple[Budget, Budget] = (BUDGET, REFINING),
) -> ResNetForImageClassification:
    """Train on scenes, half of them as `decoded` (the first ones), and on pictures that show nothing.

    In the second stage these are also blobs and plain shapes, which the first takes for apples and stars. Each stage
    resumes from its checkpoint in `folder`.
    """
    truth = truth_of(pictures.scenes)
    empty = [replace(scene, things=()) for scene in pictures.scenes[:480]]
    surfaces, on_surfaces = to_unit(np.stack([draw(scene) for scene in empty])), truth_of(empty)
    model: Any = build_judge()
    model = model.to(DEVICE, memory_format=torch.channels_last).train()

    def loss(stage: int, network: Any, step: int, generator: torch.Generator) -> Tensor:
        budget = budgets[stage]
        chosen = torch.randint(len(truth), (budget.batch,), generator=generator)
        soft = torch.rand(budget.batch, generator=generator) < 0.5
        chosen[soft] %= len(decoded)
        images = pictures.batch(chosen)
        images[soft] = to_unit(decoded[chosen[soft].numpy()])
        plain = torch.randint(len(surfaces), (NOTHING // 4,), generator=generator)
        nothing = [show_nothing(images[-NOTHING:], surfaces[plain], on_surfaces[plain], generator)]
        if stage:
            more = torch.randint(len(surfaces), (NOTHING // 2,), generator=generator)
            nothing.append(show_shapes(surfaces[more], on_surfaces[more], generator))
        kept = len(images) - NOTHING * (1 + stage)
        known = torch.cat([torch.ones(kept, len(LABELS)), *(part.known for part in nothing)])
        wanted = torch.cat([truth[chosen[:kept]], *(part.truth for part in nothing)])
        seen = disturbed(torch.cat([images[:kept], *(part.images for part in nothing)]), generator)
        logits = network(as_input(seen).to(DEVICE, memory_format=torch.channels_last)).logits
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted.to(DEVICE), reduction="none")
        return (each * known.to(DEVICE)).sum() / known.sum()

    for stage, name in enumerate(("judge.pt", "judge-refined.pt")):
        model.requires_grad_(True)
        model = optimise(model, partial(loss, stage, model), budgets[stage], folder / name, seed=stage)
    return model.eval().to("cpu", memory_format=torch.contiguous_format)


def show_nothing(images: Tensor, surfaces: Tensor, on_surfaces: Tensor, generator: torch.Generator) -> Labelled:
    """Four kinds of pictures without toys, in equal parts.

    Empty surfaces, flat or noisy fields, pictures whose pieces of 8 px are shuffled, and pictures too coarse to tell.
    Of the last two, and of coloured fields, only the kinds are asked.
    """
    part = len(surfaces)
    no_truth = torch.zeros(part, len(LABELS))
    kinds = no_truth.clone()
    kinds[:, :OF_KIND] = 1
    level = torch.rand(part, 3, 1, 1, generator=generator)
    grey = torch.rand(part, 1, 1, 1, generator=generator) < 0.5
    level = torch.where(grey, level[:, :1], level)
    grain = torch.rand(part, 1, 1, 1, generator=generator) * 0.4
    fields = level + grain * torch.randn(part, 3, 64, 64, generator=generator)
    asked = torch.where(grey.view(-1, 1), torch.ones_like(kinds), kinds)
    pieces = F.unfold(images[:part], 8, stride=8)
    order = torch.rand(part, 1, pieces.shape[-1], generator=generator).argsort(dim=-1).expand_as(pieces)
    shuffled = F.fold(pieces.gather(2, order), 64, 8, stride=8)
    coarse = F.interpolate(F.adaptive_avg_pool2d(images[part : 2 * part], 4), 64, mode="bicubic")
    return Labelled(
        torch.cat([surfaces, fields, shuffled, coarse]).clamp(0, 1),
        torch.cat([on_surfaces, no_truth, no_truth, no_truth]),
        torch.cat([torch.ones_like(kinds), asked, kinds, kinds]),
    )


def show_shapes(surfaces: Tensor, on_surfaces: Tensor, generator: torch.Generator) -> Labelled:
    """Coloured blobs, and plain shapes on the surfaces: as many of each as there are surfaces, none of them a toy."""
    count = len(surfaces)

    def some(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    cells = int(torch.randint(2, 13, (1,), generator=generator))
    blobs = F.interpolate(some(0, 1, 3, cells, cells), 64, mode="bicubic")
    blobs = (blobs - 0.5) * some(0.3, 1.2, 1, 1, 1) + some(0.3, 0.7, 3, 1, 1)
    row, column = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    shapes = surfaces
    for _ in range(int(torch.randint(1, 4, (1,), generator=generator))):
        angle, power = some(0, 3.14, 1, 1), torch.where(some(0, 1, 1, 1) < 0.6, 2.0, 8.0)
        x, y = column - some(-0.6, 0.6, 1, 1), row - some(-0.6, 0.6, 1, 1)
        across = (x * angle.cos() + y * angle.sin()) / some(0.15, 0.45, 1, 1)
        along = (y * angle.cos() - x * angle.sin()) / some(0.15, 0.45, 1, 1)
        cover = ((1 - across.abs() ** power - along.abs() ** power) * some(3, 20, 1, 1)).sigmoid()[:, None]
        colour = some(0, 1, 3, 1, 1) * (1 + some(-0.4, 0.4, 1, 1, 1) * (x + y)[:, None])
        shapes = shapes.lerp(colour.clamp(0, 1), cover)
    asked = torch.zeros(2 * count, len(LABELS))
    asked[:, :OF_KIND] = 1
    asked[count:, -len(BACKGROUNDS) :] = 1
    return Labelled(
        torch.cat([blobs, shapes]).clamp(0, 1), torch.cat([torch.zeros_like(on_surfaces), on_surfaces]), asked
    )


def disturbed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures mirrored, lit, softened and grained at random, each its own way."""

    def some(low: float, high: float) -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator) * (high - low) + low

    images = torch.where(some(0, 1) < 0.5, images.flip(-1), images)
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, stride=1)
    images = images.lerp(soft, some(-0.8, 0.9).clamp(min=0))
    images = (images - 0.5) * some(0.85, 1.15) + 0.5 + some(-0.08, 0.08)
    images = images + some(-0.05, 0.05).clamp(min=0) * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1)


def as_input(images: Tensor) -> Tensor:
    """Pictures `[n, 3, h, w]` in 0..1 as the judge reads them; its `preprocessor_config.json` says the same."""
    return F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1


@torch.no_grad()
def logits_of(model: ResNetForImageClassification, pixels: np.ndarray) -> np.ndarray:
    """Logits `[n, labels]` of uint8 pictures `[n, 64, 64, 3]`."""
    parts = [model(as_input(to_unit(pixels[start : start + 128]))).logits for start in range(0, len(pixels), 128)]
    return torch.cat(parts).double().numpy()


def calibrate(model: ResNetForImageClassification, logits: np.ndarray, truth: np.ndarray) -> Callable[..., np.ndarray]:
    """Make the probabilities right on held-out pictures, and note in the config from where a label counts as seen.

    Each label's logit becomes a z + b (Platt scaling), which is folded into the last layer; `config.thresholds` gives
    the probability that separates the label best, by balanced accuracy.

    Returns
    -------
    What turns logits of before into those of the model as it is now.
    """
    head: Any = model.classifier[-1]
    lines = np.array([_platt_line(z, held > 0.5) for z, held in zip(logits.T, truth.T, strict=True)])
    scale, shift = torch.from_numpy(lines).float().T
    with torch.no_grad():
        head.weight.mul_(scale[:, None])
        head.bias.mul_(scale).add_(shift)
    probabilities = expit(logits * lines[:, 0] + lines[:, 1])
    model.config.thresholds = {
        label: _best_threshold(probabilities[:, index], truth[:, index] > 0.5) for index, label in enumerate(LABELS)
    }
    return lambda before: before * lines[:, 0] + lines[:, 1]


def _platt_line(z: np.ndarray, held: np.ndarray) -> np.ndarray:
    """The scale and shift [2] of logits that make their cross entropy smallest.

    Targets are (n + 1) / (n + 2) and 1 / (m + 2) for n pictures that show the label and m that do not (Platt 1999):
    with 1 and 0 a label that is separated without error would have no finite scale.
    """
    targets = np.where(held, (held.sum() + 1) / (held.sum() + 2), 1 / ((~held).sum() + 2))

    def loss(line: np.ndarray) -> float:
        logits = line[0] * z + line[1]
        return float((np.logaddexp(0, logits) - targets * logits).mean())

    return minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x


def _best_threshold(probability: np.ndarray, held: np.ndarray) -> float:
    """The middle of the thresholds with the best balanced accuracy."""
    choices = np.linspace(LEAST_THRESHOLD, 0.9, 76)
    seen = probability[:, None] >= choices
    balanced = (seen[held].mean(axis=0) + 1 - seen[~held].mean(axis=0)) / 2
    return round(float(np.median(choices[balanced >= balanced.max() - 5e-4])), 3)


def held_out_report(model: ResNetForImageClassification, logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Per label: balanced accuracy, share of right decisions, and the gap of probability and frequency (ECE)."""
    rows = {}
    for index, label in enumerate(LABELS):
        probability, held = expit(logits[:, index]), truth[:, index] > 0.5
        seen = probability >= model.config.thresholds[label]
        bins = np.minimum((probability * 10).astype(int), 9)
        gaps = [abs((probability - held)[bins == number].mean()) * (bins == number).mean() for number in set(bins)]
        rows[label] = {
            "balanced": round(float(seen[held].mean() + 1 - seen[~held].mean()) / 2, 4),
            "accuracy": round(float((seen == held).mean()), 4),
            "found": round(float(seen[held].mean()), 4),
            "false": round(float(seen[~held].mean()), 4),
            "calibration_error": round(float(sum(gaps)), 4),
        }
    return rows


def save_judge(model: ResNetForImageClassification, folder: Path, report: dict[str, Any]) -> None:
    """Write weights in half precision, the config, how to prepare pictures, and what was measured."""
    model.half().save_pretrained(folder)
    save_image_settings(folder, INPUT_SIZE, (0.5,) * 3, (0.5,) * 3)
    (folder / "held_out.json").write_text(json.dumps(report, indent=1) + "\n")
