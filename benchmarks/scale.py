"""How long and how much memory at paper size?

    python -m precompute benchmark scale --images 1000 10000 --json

Codes of `precompute synthesize` (benchmarks/heavy_tails.py): 32,000 concepts, 261 tokens an image, at most 5
codes a token; with --scattered those of the worst case. Each task runs in a process of its own with compiled kernels
warm; `beyond_codes_gb` is the peak of its memory over what it held before the task, less the bytes of the codes on
disk, which are memory-mapped and may count as resident.

* `energies`: energies, statistics and exemplars of one source, and its divergence from the real one, pair by pair.
* `composition`: Z^T Z of one source, L0 curve, share unique to it, 100 changed pairs with evidence, top-100 spectrum
  and similarity of its directions to the real ones.
* `layout`: the concept map from the energies of the real images, with its trustworthiness@15 on 2,000 concepts.
* `umap` (only when asked for by --tasks): the same from plain umap-learn on the same log energies.
* `frechet`, `manifold` (likewise): FID and precision/recall/density/coverage in concept space.

`wall_s` is what the budgets speak of and holds only on an idle machine; `cpu_s` and the parts are processor time, and
`budgets` are judged by it: what takes so much processor time takes no longer on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.heavy_tails import PREFIX, TOKENS, heavy_codes, load, save
from engine.blindspots.composition import change_evidence, changed_pairs, l0_curve, unique_share
from engine.blindspots.cooccurrence import cooccurrence_matrix
from engine.blindspots.divergence import pair_divergence
from engine.blindspots.energy import EnergyPass
from engine.blindspots.metrics import frechet_distance, manifold_metrics
from engine.blindspots.spectrum import cooccurrence_spectrum, eigenvector_similarity
from precompute.recipe import LayoutConfig
from precompute.stages.layout import concept_layout

EPS = np.geomspace(1e-6, 10, 60)
CHUNK = 500
"""Images a chunk of the energy pass."""
RANK = 100
JUDGED = 2000
"""Concepts whose neighbours on the map are checked."""
BUDGETS = {"energies": (60, 2), "composition": (120, 4), "layout": (45, None)}
"""Seconds and gigabytes beyond the codes, for 10,000 images."""

Task = Callable[[], Callable[[], dict]]
"""What is timed; it returns what describes the result, which is not."""


def sum_energies(codes: sparse.csr_matrix, tokens: int) -> tuple[sparse.csr_matrix, object]:
    """One streaming pass over a source: image energies and statistics."""
    running = EnergyPass(codes.shape[1], tokens, PREFIX)
    step = CHUNK * tokens
    parts = [
        running.add(codes.indptr[start : start + step + 1], codes.indices, codes.data)
        for start in range(0, codes.shape[0], step)
    ]
    return sparse.vstack(parts, format="csr"), running.finish()


def energies(folder: Path, concepts: int, tokens: int) -> Task:
    real, _ = sum_energies(load(folder / "real", concepts), tokens)
    codes = load(folder / "model", concepts)

    def task() -> Callable[[], dict]:
        model, _ = sum_energies(codes, tokens)
        rows = np.arange(model.shape[0])
        found = pair_divergence(real, model, rows, rows)
        a_image = round(model.nnz / len(rows), 1)
        return lambda: {"median_l2": round(float(np.median(found.l2)), 3), "concepts_an_image": a_image}

    return task


def composition(folder: Path, concepts: int, tokens: int) -> Task:
    sides = load(folder / "real", concepts), load(folder / "model", concepts)
    images = sides[0].shape[0] // tokens
    real = cooccurrence_matrix(sides[0])
    real_spectrum = cooccurrence_spectrum(sides[0], RANK)

    def task() -> Callable[[], dict]:
        marks = {"start": time.process_time()}
        model = cooccurrence_matrix(sides[1])
        marks["matrix"] = time.process_time()
        l0_curve(model, EPS, images)
        unique = unique_share(real, model, EPS, real_scale=images, model_scale=images)
        marks["curves"] = time.process_time()
        changes = changed_pairs(real, model, 100, least=20)
        rows = np.arange(images)
        change_evidence(changes, *sides, tokens, rows, rows)
        marks["changes"] = time.process_time()
        spectrum = cooccurrence_spectrum(sides[1], RANK)
        eigenvector_similarity(real_spectrum, spectrum)
        marks["spectrum"] = time.process_time()
        parts = {f"{name}_cpu_s": round(end - start, 2) for (_, start), (name, end) in pairwise(marks.items())}
        return lambda: {**parts, "entries": len(model.sums), "unique_share": round(float(unique[0]), 3)}

    return task


def layout(folder: Path, concepts: int, tokens: int) -> Task:
    energy, _ = sum_energies(load(folder / "real", concepts), tokens)
    atoms = np.random.default_rng(0).normal(size=(concepts, 8)).astype(np.float32)

    def task() -> Callable[[], dict]:
        found = concept_layout(energy, atoms, LayoutConfig())
        return lambda: judged(energy, found.xy)

    return task


def umap(folder: Path, concepts: int, tokens: int) -> Task:
    from umap import UMAP

    energy, _ = sum_energies(load(folder / "real", concepts), tokens)

    def task() -> Callable[[], dict]:
        places = UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(log_energies(energy))
        return lambda: judged(energy, places)

    return task


def log_energies(energy: sparse.csr_matrix) -> sparse.csr_matrix:
    """[concepts, images] log(1 + energy), what both kinds of map start from."""
    rows = energy.T.tocsr()
    rows.data = np.log1p(rows.data)
    return rows


def judged(energy: sparse.csr_matrix, places: np.ndarray) -> dict:
    """Trustworthiness of a map among some of the concepts that fire."""
    from sklearn.manifold import trustworthiness

    live = np.unique(energy.indices)
    sample = np.random.default_rng(0).choice(live, min(JUDGED, len(live)), replace=False)
    found = trustworthiness(log_energies(energy)[sample], places[sample], n_neighbors=15, metric="cosine")
    return {"trustworthiness_15": round(float(found), 4)}


def frechet(folder: Path, concepts: int, tokens: int) -> Task:
    sides = [sum_energies(load(folder / name, concepts), tokens)[0] for name in ("real", "model")]

    def task() -> Callable[[], dict]:
        found = frechet_distance(*sides)
        return lambda: {"fid": round(found.distance, 4)}

    return task


def manifold(folder: Path, concepts: int, tokens: int) -> Task:
    sides = [sum_energies(load(folder / name, concepts), tokens)[0] for name in ("real", "model")]
    return lambda: manifold_metrics(*sides)._asdict


TASKS = {
    "energies": energies,
    "composition": composition,
    "layout": layout,
    "umap": umap,
    "frechet": frechet,
    "manifold": manifold,
}


def resident() -> float:
    """Gigabytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def highest() -> float:
    """Gigabytes of the largest resident size since the mark was set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))


def warm_up(name: str) -> None:
    """Compile the kernels on a few codes."""
    codes = heavy_codes(60, 300, 0)
    energy, _ = sum_energies(codes, TOKENS)
    if name in ("layout", "umap"):
        concept_layout(energy, np.ones((300, 4), np.float32), LayoutConfig())
        return
    small = cooccurrence_matrix(codes)
    unique_share(small, small, EPS)
    changed_pairs(small, small, 1)


def measured(name: str, folder: str, concepts: int, tokens: int, images: int, code_bytes: int) -> dict:
    """Run one task; its preparation (the real source) is not timed."""
    warm_up(name)
    task = TASKS[name](Path(folder), concepts, tokens)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    clock, processor = time.perf_counter(), time.process_time()
    describe = task()
    wall, busy = time.perf_counter() - clock, time.process_time() - processor
    beyond = highest() - before - code_bytes / 1e9
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(busy, 2),
        "ms_an_image": round(1e3 * busy / images, 4),
        "beyond_codes_gb": round(max(beyond, 0.0), 2),
        **describe(),
    }


def budgets(row: dict) -> dict[str, dict]:
    """Whether each budget holds for the figures of 10,000 images, in processor seconds and gigabytes."""
    found = {}
    for name, (seconds, gigabytes) in BUDGETS.items():
        if name in row:
            fits = gigabytes is None or row[name]["beyond_codes_gb"] < gigabytes
            limits = {"seconds": seconds} | ({"gb": gigabytes} if gigabytes else {})
            found[name] = limits | {"met": row[name]["cpu_s"] < seconds and fits}
    if "layout" in row and "umap" in row:
        found["layout"]["keeps_neighbours"] = row["layout"]["trustworthiness_15"] >= row["umap"]["trustworthiness_15"]
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--concepts", type=int, default=32_000)
    arguments.add_argument("--images", type=int, nargs="*", default=[1000, 10_000])
    arguments.add_argument("--tokens", type=int, default=TOKENS)
    arguments.add_argument("--scattered", action="store_true", help="the worst case for composition")
    arguments.add_argument("--tasks", nargs="*", choices=list(TASKS), default=["energies", "composition", "layout"])
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    concepts, tokens = options.concepts, options.tokens
    report: dict = {"concepts": concepts, "tokens": tokens, "load_average": os.getloadavg()[0], "images": {}}
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            sizes = [
                save(heavy_codes(images, concepts, seed, tokens, options.scattered), Path(folder) / name)
                for seed, name in enumerate(("real", "model"))
            ]
            row = report["images"][images] = {"codes_gb": round(sizes[1] / 1e9, 3)}
            for name in options.tasks:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    row[name] = pool.apply(measured, (name, folder, concepts, tokens, images, sizes[1]))
    if 10_000 in report["images"] and tokens == TOKENS:
        report["budgets"] = budgets(report["images"][10_000])
    print(json.dumps(report, indent=2 if options.json else None))


if __name__ == "__main__":
    main()
