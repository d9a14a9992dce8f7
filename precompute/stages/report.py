"""How good the dictionary is: measured on the tokens of the real images, and against itself from other seeds.

`usage-*.npz` holds the sums of one token shard, `seed-*` a dictionary that is trained for comparison; both go when the
report is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.atlas.schema import REAL, REPORT, REPORT_TABLE
from engine.atlas.writer import AtlasWriter
from engine.devices import pick_device
from engine.dictionary.base import Dictionary
from engine.dictionary.evaluation import DictionaryReport, Usage, joined, measure_usage, report
from engine.dictionary.spec import DictionarySpec
from engine.files import plain, read_arrays, read_json, write_arrays, write_json
from precompute.runner import Context, Progress, Stage
from precompute.stages.dictionary import DICTIONARY, dictionary_folder, make_dictionary, trained_on, training_shards
from precompute.stages.encode import token_shards

SUMMARY, TABLE = "report.json", "report.npz"
PERCENT = 100
"""What each part of the work counts in the progress: the shards together, and every training."""


class ReportStage(Stage):
    """`report`: the dictionary's reconstruction, usage, coherence and stability."""

    unit = "%"

    def __init__(self, context: Context) -> None:
        spec = context.recipe.dictionary
        after = ("dictionary", *(f"encode/{name}" for name in trained_on(context)))
        super().__init__(context, "report", {"seeds": 1 if spec.load else spec.report_seeds}, after)

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write `report.json` and `report.npz`."""
        context, shards = self.context, token_shards(self.context.folder(f"encode/{REAL}"))
        spec, dictionary = context.recipe.dictionary, dictionary_folder(context)
        return make_report(spec, dictionary, shards, training_shards(context), folder, progress)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the report's summary and its table."""
        summary, table = read_report(context.folder("report"))
        writer.write_table(REPORT_TABLE, table)
        writer.add_file(REPORT, json.dumps(plain(summary), indent=1, sort_keys=True).encode())


def read_report(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """What `make_report` kept: the summary, and the rows of the atlas's table, one per concept."""
    table = pd.DataFrame(read_arrays(folder / TABLE))
    return read_json(folder / SUMMARY), table.rename_axis("concept").reset_index()


def make_report(
    spec: DictionarySpec,
    dictionary: Path,
    shards: Sequence[Path],
    training: Sequence[Path],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Measure the dictionary and keep the report in the stage's folder, from where a killed run left off.

    Parameters
    ----------
    spec : says how many seeds are compared, and how the dictionary was trained.
    dictionary : its folder.
    shards : token shards of the real images.
    training : token shards that the dictionary was trained on.
    folder : the stage's folder; gets `report.json` and `report.npz`.
    progress : called with the percent done of all parts of the work.
    """
    if not (folder / SUMMARY).exists():
        measured = Dictionary.from_pretrained(dictionary, pick_device(spec.device))
        seeds = range(spec.seed + 1, spec.seed + (1 if spec.load else spec.report_seeds))

        def part(number: int) -> Progress:
            total = PERCENT * (1 + len(seeds))
            return lambda done, all_: progress(PERCENT * number + PERCENT * done // all_, total)

        usage, others = _usage(measured, shards, folder, part(0)), []
        for number, seed in enumerate(seeds, start=1):
            trained = folder / f"seed-{seed}"
            make_dictionary(replace(spec, seed=seed), training, trained, part(number))
            others.append(Dictionary.from_pretrained(trained / DICTIONARY).atoms())
        found = report(measured, shards, others=others, usage=usage, seed=spec.seed)
        write_arrays(folder / TABLE, **_columns(found))
        write_json(folder / SUMMARY, found.summary())
    for scratch in (*folder.glob("usage-*.npz"), *folder.glob("seed-*")):
        shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()
    summary = read_json(folder / SUMMARY)
    return {name: summary[name] for name in ("r2", "l0", "dead_share")}


def _usage(dictionary: Dictionary, shards: Sequence[Path], folder: Path, progress: Progress) -> Usage:
    """The usage on all shards; those measured before are read."""
    parts = []
    for number, shard in enumerate(shards):
        path = folder / f"usage-{number:05d}.npz"
        if not path.exists():
            found = measure_usage(dictionary, [shard])
            write_arrays(path, **{name: np.asarray(value) for name, value in asdict(found).items()})
        stored = read_arrays(path).items()
        sums: dict[str, Any] = {name: torch.from_numpy(x) if x.ndim else x.item() for name, x in stored}
        parts.append(Usage(**sums))
        progress(number + 1, len(shards))
    return joined(parts)


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
