"""The authors' way against one sparse pass, on the same codes.

    python -m precompute benchmark authors --json

Their published analysis works on dense codes: four images at a time, [4, tokens, K] floats of which one in 6,400 is not
zero, a Python loop over the K concepts that updates each one's energy and best images, and a dense K x K product added
to Z^T Z. It is written here in our own words. Both ways must agree on every number before their times are compared.

Times are those of the processor (`time.process_time`), so that other work on the machine does not count. The dense way
needs about 9 GB at 32,000 concepts.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import NamedTuple

import numpy as np
from scipy import sparse

from benchmarks.heavy_tails import PREFIX, TOKENS, heavy_codes
from engine.blindspots.cooccurrence import Cooccurrence, cooccurrence_matrix
from engine.blindspots.energy import EnergyPass, SourceEnergies

BATCH = 4
EXEMPLARS = 10


class Dense(NamedTuple):
    """What the dense way knows of a source."""

    energy: np.ndarray
    """[K] sum of codes."""
    exemplars: list[list[tuple[float, int]]]
    """Per concept, (mean patch code, image), best first."""
    gram: np.ndarray
    """[K, K] Z^T Z."""


def dense_way(codes: sparse.csr_matrix) -> Dense:
    """Energies, exemplars and co-occurrence from dense codes, four images at a time, concept by concept."""
    concepts = codes.shape[1]
    energy = np.zeros(concepts)
    exemplars: list[list[tuple[float, int]]] = [[] for _ in range(concepts)]
    gram = np.zeros((concepts, concepts), np.float32)
    for first in range(0, codes.shape[0] // TOKENS, BATCH):
        flat = codes[first * TOKENS : (first + BATCH) * TOKENS].toarray()
        batch = flat.reshape(-1, TOKENS, concepts)
        for concept in range(concepts):
            activation = batch[:, :, concept]
            energy[concept] += activation.sum()
            scores = activation[:, PREFIX:].mean(axis=1)
            found = exemplars[concept] + [(float(score), first + i) for i, score in enumerate(scores) if score > 0]
            exemplars[concept] = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:EXEMPLARS]
        gram += flat.T @ flat
    return Dense(energy, exemplars, gram)


def sparse_way(codes: sparse.csr_matrix) -> tuple[SourceEnergies, Cooccurrence]:
    """The same from the sparse codes."""
    running = EnergyPass(codes.shape[1], TOKENS, PREFIX, exemplars=EXEMPLARS)
    running.add(codes.indptr, codes.indices, codes.data)
    return running.finish(), cooccurrence_matrix(codes)


def check(dense: Dense, energies: SourceEnergies, composition: Cooccurrence) -> None:
    """Stop if the two ways do not agree.

    Raises
    ------
    SystemExit
        With what differs.
    """
    at_entries = dense.gram[composition.rows, composition.indices]
    agree = {
        "energies": np.allclose(dense.energy, energies.moments.sum, rtol=1e-4),
        "exemplars": all(
            [image for _, image in listed] == found[: len(listed)].tolist()
            for listed, found in zip(dense.exemplars, energies.exemplars, strict=True)
            if len({score for score, _ in listed}) == len(listed)
        ),
        "co-occurrence": np.allclose(at_entries, composition.sums, rtol=1e-3),
        "entries": np.count_nonzero(dense.gram) == 2 * len(composition.sums) - np.count_nonzero(np.diag(dense.gram)),
    }
    wrong = [name for name, same in agree.items() if not same]
    if wrong:
        raise SystemExit(f"The two ways disagree on {', '.join(wrong)}: no speed is worth comparing.")


def compare(concepts: int, dense_images: int, sparse_images: int) -> dict:
    """Processor seconds per image of both ways and their ratio.

    Both are checked against each other on `dense_images`; the sparse way, whose cost is partly per run, is timed on
    `sparse_images` of the same codes' law.
    """
    codes = heavy_codes(dense_images, concepts, 0)
    clock = time.process_time()
    dense = dense_way(codes)
    dense_seconds = (time.process_time() - clock) / dense_images
    check(dense, *sparse_way(codes))
    del dense
    more = heavy_codes(sparse_images, concepts, 0)
    clock = time.process_time()
    sparse_way(more)
    sparse_seconds = (time.process_time() - clock) / sparse_images
    return {
        "concepts": concepts,
        "dense_images": dense_images,
        "sparse_images": sparse_images,
        "dense_s_an_image": round(dense_seconds, 3),
        "sparse_ms_an_image": round(1e3 * sparse_seconds, 3),
        "ratio": round(dense_seconds / sparse_seconds),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--concepts", type=int, default=32_000)
    arguments.add_argument("--dense-images", type=int, default=8)
    arguments.add_argument("--sparse-images", type=int, default=2000)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    report = compare(options.concepts, options.dense_images, options.sparse_images)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print("  ".join(f"{name} {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
