"""Which layer, resolution and number of concepts tell the demo's attributes apart best?

    python -m precompute benchmark encoders --encoder DINOV2 --sizes 112 168 --layers 6 7 8 --json

For each choice a dictionary is fitted to the tokens of the demo's real scenes, as the demo's recipe fits it. Of each
attribute the concept is chosen whose image energy has the best average precision on these scenes; reported is its
average precision on other scenes, which neither the dictionary nor the choice has seen, and how many concepts reach
0.7 on both. `seconds` is what one image costs on this machine forward and back, read at that layer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from transformers import AutoModel

from engine.dictionary.fitting import fit
from engine.dictionary.spec import DictionarySpec
from engine.files import DATA
from engine.vision.encoder import Encoder
from engine.vision.preprocess import prepare
from precompute.demo_world.optimisation import to_unit
from precompute.demo_world.scenes import Scene, corpus, draw
from precompute.recipe import load_recipe

RECIPE = DATA / "recipes/demo.yaml"
HELD_OUT_SEED = 30_000_001
CLEAR = 0.7
"""Average precision from which a concept counts as one of an attribute."""


def attributes(scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Which scenes show a kind, a colour, a background: {"kind: disc": bool [scenes]}."""
    held = [
        {f"background: {scene.background}"}
        | {f"{name}: {getattr(thing, name)}" for thing in scene.things for name in ("kind", "colour")}
        for scene in scenes
    ]
    return {name: np.array([name in one for one in held]) for name in sorted(set().union(*held))}


@torch.no_grad()
def layer_tokens(encoder: Encoder, images: Tensor, layers: list[int], batch: int = 32) -> dict[int, Tensor]:
    """Tokens [n, tokens, dim] of images [n, 3, h, w] in 0..1, by layer, from one pass, in float16."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for part in images.split(batch):
        states = encoder.backbone(prepare(part, encoder.spec), output_hidden_states=True).hidden_states
        for layer in layers:
            found[layer].append(encoder.backbone.layernorm(states[layer]).half())
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def precisions(tokens: Tensor, dictionary: Any, truth: dict[str, np.ndarray]) -> np.ndarray:
    """Average precision [attributes, concepts] of each concept's energy, its activation summed over tokens."""
    energy = np.zeros((len(tokens), dictionary.concepts), np.float32)
    with torch.no_grad():
        for row, one in enumerate(tokens):
            codes = dictionary.encode(one.float())
            np.add.at(energy[row], codes.indices.flatten().numpy(), codes.values.flatten().numpy())
    return np.array([[average_precision_score(held, column) for column in energy.T] for held in truth.values()])


def seconds_an_image(encoder: Encoder, layer: int, size: int) -> float:
    """Forward and back through the first `layer` blocks, best of three."""
    backbone = AutoModel.from_pretrained(encoder.spec.id, dtype=torch.float32).eval().requires_grad_(False)
    backbone.encoder.layer = backbone.encoder.layer[:layer]
    pixels, best = torch.rand(1, 3, size, size, requires_grad=True), float("inf")
    for _ in range(3):
        start = time.perf_counter()
        backbone(pixels).last_hidden_state.square().mean().backward()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--encoder", required=True, help="folder or id of a DINOv2")
    arguments.add_argument("--sizes", type=int, nargs="+", default=[112])
    arguments.add_argument("--layers", type=int, nargs="+", default=[6, 7, 8, 9])
    arguments.add_argument("--concepts", type=int, nargs="+", default=[256])
    arguments.add_argument("--scenes", type=int, default=545, help="scenes that nothing was fitted to")
    arguments.add_argument("--recipe", type=Path, default=RECIPE)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    recipe = load_recipe(options.recipe)
    fitted = corpus(recipe.real.count, recipe.real.seed)
    other = corpus(options.scenes, HELD_OUT_SEED)
    pixels = [to_unit(np.stack([draw(scene, recipe.real.size) for scene in scenes])) for scenes in (fitted, other)]
    truths = [attributes(fitted), attributes(other)]
    names = [name for name in truths[0] if name in truths[1]]
    rows = []
    for size in options.sizes:
        encoder = Encoder.from_pretrained(options.encoder, image_size=size, resize="square", device="cpu")
        tokens = [layer_tokens(encoder, part, options.layers) for part in pixels]
        for layer in options.layers:
            for concepts in options.concepts:
                spec = DictionarySpec(
                    concepts=concepts, sparsity=5, epochs=recipe.dictionary.epochs, batch=1024, device="cpu"
                )
                dictionary, report = fit(tokens[0][layer].flatten(0, 1), spec)
                own, held = (
                    precisions(part[layer], dictionary, {name: truth[name] for name in names})
                    for part, truth in zip(tokens, truths, strict=True)
                )
                best = held[np.arange(len(names)), own.argmax(axis=1)]
                clear = ((own >= CLEAR) & (held >= CLEAR)).sum(axis=1)
                rows.append(
                    {"size": size, "layer": layer, "concepts": concepts, "r2": round(report.r2, 4),
                     "dead": round(report.dead_share, 3), "seconds": round(seconds_an_image(encoder, layer, size), 3),
                     "mean": round(float(best.mean()), 3), "clear": int((clear > 0).sum()),
                     "precision": dict(zip(names, best.round(2).tolist(), strict=True)),
                     "concepts_of": dict(zip(names, clear.tolist(), strict=True))}
                )  # fmt: skip
                if not options.json:
                    print(json.dumps(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
