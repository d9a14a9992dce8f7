"""Does the memory of the statistics grow with the images?

    python -m precompute benchmark memory --images 2000 20000 --json

Invented codes go through what the stages do: `energies` (codes of shards, written as they come), `delta` (gaps of
pairs), `composition` (a row of Z per image) and `composition-tokens`, `index` (neighbours), `metrics`, `divergence`,
`layout` (in memory up to 10,000 images, by blocks beyond), `words` (with invented captions) and `recognition` (with 40
labels). Each runs in a process of its own; `peak_mb` is how much its memory rises above what it held before,
`bytes_an_image` the slope between the smallest and the largest number of images, and `beyond_embeddings` that less the
embeddings of both sources.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.scale import highest, resident
from engine.atlas.storage import CSR, CSRFolder
from engine.blindspots.recognition import match_labels
from engine.blindspots.significance import measure_gap
from precompute.recipe import LayoutConfig, WordsConfig
from precompute.stages.composition import compose_model, compose_real
from precompute.stages.divergence import measure_pairs
from precompute.stages.energies import sum_codes
from precompute.stages.layout import concept_layout
from precompute.stages.metrics import compare_model
from precompute.stages.neighbours import find_neighbours
from precompute.stages.words import name_concepts

SHARD, SPARSITY, PREFIX = 64, 5, 1
LABELS = 40
LIMIT = 2048
"""Bytes an image beyond the embeddings that are allowed."""


def shards(images: int, concepts: int, tokens: int, seed: int) -> Iterator[CSR]:
    """Codes of some images at a time; few concepts fire often, many seldom."""
    for start in range(0, images, SHARD):
        rng = np.random.default_rng([seed, start])
        rows = min(SHARD, images - start) * tokens
        indices = np.sort((concepts * rng.random((rows, SPARSITY)) ** 3).astype(np.uint16), axis=1)
        keep = np.ones(indices.shape, bool)
        keep[:, 1:] = indices[:, 1:] != indices[:, :-1]
        values = rng.gamma(2.0, 1.0, indices.shape).astype(np.float16).astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64)
        yield CSR(indptr, indices[keep], values[keep], concepts)


def vectors(folder: Path, images: int, dim: int) -> None:
    """Embeddings of both sources, written some at a time."""
    for seed, name in enumerate(("real", "model")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        stored = np.lib.format.open_memmap(folder / name / "embeddings.npy", "w+", np.float32, (images, dim))
        for start in range(0, images, 1024):
            part = np.random.default_rng([seed, start]).normal(size=(min(1024, images - start), dim))
            stored[start : start + 1024] = part / np.linalg.norm(part, axis=1, keepdims=True)


def captions(images: int) -> list[str]:
    """Ten words each, of 5,000 of which few are frequent."""
    words = (5000 * np.random.default_rng(0).random((images, 10)) ** 3).astype(int)
    return [" ".join(f"w{chr(97 + word % 26)}{'abcdefgh'[word % 7]}{'x' * (word % 5)}{chr(97 + word // 200)}"
                     for word in row) for row in words]  # fmt: skip


def run_task(name: str, folder: Path, images: int, concepts: int, tokens: int) -> None:
    """One stage's work on what lies in the folder."""
    sides = {kind: [CSRFolder(folder / side / kind, concepts) for side in ("real", "model")]
             for kind in ("codes", "energy")} if name != "energies" else {}  # fmt: skip
    rows = np.arange(images)
    if name == "energies":
        for seed, side in enumerate(("real", "model")):
            sum_codes(shards(images, concepts, tokens, seed), concepts, tokens, PREFIX, folder / side)
    elif name == "delta":
        measure_gap(*sides["energy"], rows, rows)
    elif name.startswith("composition"):
        kind, per_image = ("codes", tokens) if name == "composition-tokens" else ("energy", 1)
        real = compose_real(sides[kind][0], per_image, _silent)
        compose_model("model", (sides[kind][0], sides[kind][1]), per_image, rows, real, _silent)
    elif name == "index":
        atoms = np.random.default_rng(0).normal(size=(concepts, 16)).astype(np.float32)
        find_neighbours(sides["codes"][0], atoms, atoms[:, :2], tokens)
    elif name == "layout":
        atoms = np.random.default_rng(0).normal(size=(concepts, 16)).astype(np.float32)
        concept_layout(sides["energy"][0], atoms, LayoutConfig())
    elif name == "words":
        name_concepts(sides["energy"][0], captions(images), WordsConfig().count)
    elif name == "recognition":
        shown = np.random.default_rng(0).random((images, LABELS)) < 0.2
        match_labels(sides["energy"][0], shown, np.arange(concepts))
    elif name == "divergence":
        embeddings = [np.load(folder / side / "embeddings.npy", mmap_mode="r") for side in ("real", "model")]
        measure_pairs((sides["energy"][0], sides["energy"][1]), (embeddings[0], embeddings[1]), rows,
                      np.ones(concepts, bool), 0.8)  # fmt: skip
    else:
        embeddings = [np.load(folder / side / "embeddings.npy") for side in ("real", "model")]
        spaces = [{"encoder": one, "concepts": two} for one, two in zip(embeddings, sides["energy"], strict=True)]
        compare_model("model", spaces[0], spaces[1], rows, _silent)


TASKS = ("energies", "delta", "composition", "composition-tokens", "index", "metrics", "divergence", "layout", "words",
         "recognition")  # fmt: skip


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def measured(name: str, folder: str, images: int, concepts: int, tokens: int, dim: int) -> dict[str, float]:
    """Run a task in this process after a small one that loads and compiles all it needs."""
    with tempfile.TemporaryDirectory() as small:
        vectors(Path(small), SHARD, dim)
        for each in dict.fromkeys(("energies", name)):
            run_task(each, Path(small), SHARD, concepts, tokens)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    clock = time.perf_counter()
    run_task(name, Path(folder), images, concepts, tokens)
    return {"peak_mb": round(1e3 * (highest() - before), 2), "seconds": round(time.perf_counter() - clock, 2)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--images", type=int, nargs="*", default=[2000, 20_000])
    arguments.add_argument("--concepts", type=int, default=512)
    arguments.add_argument("--tokens", type=int, default=17)
    arguments.add_argument("--dim", type=int, default=32, help="of the embeddings")
    arguments.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    sizes, embeddings = sorted(options.images), 2 * 4 * options.dim
    report: dict = {"concepts": options.concepts, "tokens": options.tokens, "limit_bytes_an_image": LIMIT, "tasks": {}}
    tasks: dict[str, dict] = {name: {} for name in options.tasks}
    for images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            vectors(Path(folder), images, options.dim)
            for name in dict.fromkeys(("energies", *options.tasks)):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    given = (name, folder, images, options.concepts, options.tokens, options.dim)
                    found = pool.apply(measured, given)
                tasks.setdefault(name, {})[str(images)] = found
    for name, by_size in tasks.items():
        if len(sizes) > 1:
            rise = by_size[str(sizes[-1])]["peak_mb"] - by_size[str(sizes[0])]["peak_mb"]
            slope = 1e6 * rise / (sizes[-1] - sizes[0])
            beyond = slope - (embeddings if name == "metrics" else 0)
            by_size |= {"bytes_an_image": round(slope), "beyond_embeddings": round(beyond), "flat": beyond <= LIMIT}
        report["tasks"][name] = by_size
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
