"""The sparse dictionary of an atlas: trained on tokens of the real images, or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.dictionary import Dictionary, TrainConfig, fit, load_dictionary, save_dictionary
from engine.errors import BlindspotError
from precompute.devices import pick_device
from precompute.files import read_json, write_array, write_json
from precompute.plan import Progress
from precompute.recipe import DictionaryPart

KINDS = {"rasae": "archetypal", "topk": "topk"}
"""What a recipe calls a kind, and what the engine does."""
CHECKPOINT_EVERY = 100
"""Steps that a killed training loses at most."""
DICTIONARY, REPORT, CHECKPOINTS, TRAINING = "dictionary", "report.json", "checkpoints", "training"


def make_dictionary(part: DictionaryPart, shards: Sequence[Path], folder: Path, progress: Progress) -> dict[str, Any]:
    """Train or load the dictionary and save it in the stage's folder, from where a killed run left off.

    Args:
        part: what to train, or what to load.
        shards: token shards `[tokens, dim]`.
        folder: the stage's folder; gets `dictionary/` and `report.json`.
        progress: called with the steps done and all steps.

    Returns:
        What the atlas's header says of the dictionary.

    Raises:
        BlindspotError: the dictionary to load is missing, or does not fit the encoder's tokens.
    """
    if (folder / REPORT).exists():
        return read_json(folder / REPORT)
    if part.load is not None:
        dictionary = load_dictionary(part.load)
        dim = np.load(shards[0], mmap_mode="r").shape[1]
        if dictionary.dim != dim:
            raise BlindspotError(
                f"The dictionary {part.load} reads tokens of width {dictionary.dim}, but the encoder gives {dim}; use "
                "the encoder and layer that it was trained on."
            )
        reached: dict[str, Any] = {"origin": "loaded"}
    else:
        dictionary, reached = _train(part, shards, folder, progress)
    save_dictionary(dictionary, folder / DICTIONARY)
    report = {"kind": dictionary.kind, **_sizes(dictionary), **reached}
    write_json(folder / REPORT, report)
    for scratch in (CHECKPOINTS, TRAINING):
        shutil.rmtree(folder / scratch, ignore_errors=True)
    return report


def _sizes(dictionary: Dictionary) -> dict[str, int]:
    return {"concepts": dictionary.concepts, "dim": dictionary.dim, "sparsity": dictionary.sparsity}


def _train(
    part: DictionaryPart, shards: Sequence[Path], folder: Path, progress: Progress
) -> tuple[Dictionary, dict[str, Any]]:
    config = TrainConfig(
        epochs=part.epochs,
        batch_size=part.batch,
        learning_rate=part.learning_rate,
        seed=part.seed,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    dictionary, report = fit(
        thin_out(shards, part.tokens, part.seed, folder / TRAINING),
        KINDS[part.kind],
        part.concepts,
        part.sparsity,
        config=config,
        settings={"candidates": part.candidates, "delta": part.delta} if part.kind == "rasae" else None,
        device=pick_device(part.device),
        on_progress=lambda at: progress(at.step, at.steps),
        checkpoint_dir=folder / CHECKPOINTS,
    )
    reached = {name: round(value, 6) for name, value in asdict(report).items() if name != "seconds"}
    return dictionary, {"origin": "trained", **reached}


def thin_out(shards: Sequence[Path], most: int, seed: int, folder: Path) -> list[Path]:
    """Token shards with at most `most` rows in all, drawn at random from each shard in proportion to its size.

    Returns:
        `shards` themselves if they have no more rows than that, else new ones in `folder`.
    """
    rows = [len(np.load(shard, mmap_mode="r")) for shard in shards]
    if sum(rows) <= most:
        return list(shards)
    ends = np.floor(np.cumsum(rows) * (most / sum(rows))).astype(int)
    thinned = []
    for number, (shard, count) in enumerate(zip(shards, np.diff(ends, prepend=0), strict=True)):
        path = folder / f"tokens-{number:05d}.npy"
        if not path.exists():
            chosen = np.random.default_rng([seed, number]).choice(rows[number], count, replace=False)
            write_array(path, np.load(shard, mmap_mode="r")[np.sort(chosen)])
        thinned.append(path)
    return thinned
