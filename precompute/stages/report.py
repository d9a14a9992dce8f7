"""How good the dictionary is: measured on the tokens of the real images, and against itself from other seeds.

`usage-*.npz` holds the sums of one token shard, `seed-*` a dictionary that is trained for comparison; both go when the
report is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.devices import pick_device
from engine.dictionary.base import Dictionary
from engine.dictionary.checkpoints import load_dictionary
from engine.dictionary.report import DictionaryReport, report
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.usage import Usage, joined, measure_usage
from engine.files import read_json, write_arrays, write_json
from precompute.plan import Progress
from precompute.stages.dictionary import DICTIONARY, make_dictionary

SUMMARY, TABLE = "report.json", "report.npz"
PERCENT = 100
"""What each part of the work counts in the progress: the shards together, and every training."""


def make_report(
    part: DictionarySpec,
    dictionary: Path,
    shards: Sequence[Path],
    training: Sequence[Path],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the dictionary and keep the report in the stage's folder, from where a killed run left off.

    Args:
        part: says how many seeds are compared, and how the dictionary was trained.
        dictionary: its folder.
        shards: token shards of the real images.
        training: token shards that the dictionary was trained on.
        folder: the stage's folder; gets `report.json` and `report.npz`.
        progress: called with the percent done of all parts of the work.
    """
    if not (folder / SUMMARY).exists():
        measured = load_dictionary(dictionary, pick_device(part.device))
        seeds = range(part.seed + 1, part.seed + part.report_seeds if part.load is None else part.seed + 1)
        total = PERCENT * (1 + len(seeds))
        usage = _usage(measured, shards, folder, lambda done, all_: progress(PERCENT * done // all_, total))
        others = [
            _other_atoms(
                replace(part, seed=seed),
                training,
                folder,
                lambda done, all_, number=number: progress(PERCENT * number + PERCENT * done // all_, total),
            )
            for number, seed in enumerate(seeds, start=1)
        ]
        found = report(measured, shards, others=others, usage=usage, seed=part.seed)
        write_arrays(folder / TABLE, **_columns(found))
        write_json(folder / SUMMARY, found.summary())
    for scratch in (*folder.glob("usage-*.npz"), *folder.glob("seed-*")):
        shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()
    summary = read_json(folder / SUMMARY)
    return {name: summary[name] for name in ("r2", "l0", "dead_share")}


def read_report(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """What `make_report` kept: the summary, and the rows of the atlas's table, one per concept."""
    with np.load(folder / TABLE) as stored:
        table = pd.DataFrame(dict(stored))
    return read_json(folder / SUMMARY), table.rename_axis("concept").reset_index()


def _usage(dictionary: Dictionary, shards: Sequence[Path], folder: Path, progress: Progress) -> Usage:
    """The usage on all shards; those measured before are read."""
    parts = []
    for number, shard in enumerate(shards):
        path = folder / f"usage-{number:05d}.npz"
        if not path.exists():
            found = measure_usage(dictionary, [shard])
            write_arrays(path, **{name: np.asarray(value) for name, value in asdict(found).items()})
        with np.load(path) as stored:
            sums = {name: torch.from_numpy(value) if value.ndim else value.item() for name, value in stored.items()}
        parts.append(Usage(**sums))
        progress(number + 1, len(shards))
    return joined(parts)


def _other_atoms(part: DictionarySpec, shards: Sequence[Path], folder: Path, progress: Progress) -> torch.Tensor:
    """The atoms `[concepts, dim]` that training finds from another seed."""
    trained = folder / f"seed-{part.seed}"
    make_dictionary(part, shards, trained, progress)
    return load_dictionary(trained / DICTIONARY).atoms()


def _columns(found: DictionaryReport) -> dict[str, np.ndarray]:
    """One number per concept for each column of the atlas's table."""
    concepts = len(found.usage.fires)
    stable = np.full(concepts, np.nan, np.float32) if found.stability is None else found.stability.concept.numpy()
    return {
        "fires": found.usage.fires.numpy(),
        "coherence": found.coherence.value.numpy(),
        "nearest": found.coherence.nearest.numpy(),
        "hull_distance": found.hull.value.numpy(),
        "stability": stable,
    }
