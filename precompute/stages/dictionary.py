"""The sparse dictionary of an atlas: trained on tokens of the real images, or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.devices import pick_device
from engine.dictionary.base import Dictionary
from engine.dictionary.checkpoints import load_dictionary, origin_of, save_dictionary
from engine.dictionary.fitting import fit
from engine.dictionary.schedule import TrainConfig
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.training import Progress as Training
from engine.errors import BlindspotError
from engine.files import read_json, write_array, write_json
from precompute.plan import Progress
from precompute.stages.encode import read_spec

KINDS = {"rasae": "archetypal", "topk": "topk", "batchtopk": "batchtopk", "transcoder": "transcoder"}
"""What a recipe calls a kind, and what the engine does."""
SETTINGS = {
    "rasae": ("candidates", "delta"),
    "topk": (),
    "batchtopk": ("max_active",),
    "transcoder": ("kernel",),
}
"""Fields of a recipe that only one kind has."""
TRAINING_FIELDS = (
    *("epochs", "steps", "target_r2", "learning_rate", "final_learning_rate", "weight_decay", "revival", "precision"),
    "seed",
)
CHECKPOINT_EVERY = 100
"""Steps that a killed training loses at most."""
DICTIONARY, REPORT, CHECKPOINTS, TRAINING = "dictionary", "report.json", "checkpoints", "training"


def make_dictionary(part: DictionarySpec, shards: Sequence[Path], folder: Path, progress: Progress) -> dict[str, Any]:
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
    imported = None
    if part.load is not None:
        dictionary, imported = load_dictionary(part.load), origin_of(part.load)
        dim = np.load(shards[0], mmap_mode="r").shape[1]
        if dictionary.dim != dim:
            raise BlindspotError(
                f"The dictionary {part.load} reads tokens of width {dictionary.dim}, but the encoder gives {dim}; use "
                "the encoder and layer that it was trained on."
            )
        reached: dict[str, Any] = {"origin": "loaded"}
    else:
        dictionary, reached = _train(part, shards, folder, progress)
    save_dictionary(dictionary, folder / DICTIONARY, imported)
    report = {"kind": dictionary.kind, **_sizes(dictionary), **reached}
    write_json(folder / REPORT, report)
    for scratch in (CHECKPOINTS, TRAINING):
        shutil.rmtree(folder / scratch, ignore_errors=True)
    return report


def _sizes(dictionary: Dictionary) -> dict[str, int]:
    return {"concepts": dictionary.concepts, "dim": dictionary.dim, "sparsity": dictionary.sparsity}


def _train(
    part: DictionarySpec, shards: Sequence[Path], folder: Path, progress: Progress
) -> tuple[Dictionary, dict[str, Any]]:
    config = TrainConfig(
        **{name: getattr(part, name) for name in TRAINING_FIELDS},
        batch_size=part.batch,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    settings = {name: getattr(part, name) for name in SETTINGS[part.kind]}
    whole = 1
    if part.kind == "transcoder":
        settings["grid"] = _grid(shards)
        whole = settings["grid"][0] * settings["grid"][1]
    dictionary, report = fit(
        thin_out(shards, part.tokens, part.seed, folder / TRAINING, whole),
        KINDS[part.kind],
        part.concepts,
        part.sparsity,
        config=config,
        settings=settings,
        device=pick_device(part.device),
        on_progress=lambda at: _tell(progress, at),
        checkpoint_dir=folder / CHECKPOINTS,
    )
    reached = {name: round(value, 6) for name, value in asdict(report).items() if name != "seconds"}
    return dictionary, {"origin": "trained", **reached}


def _grid(shards: Sequence[Path]) -> tuple[int, int]:
    """Height and width of the maps whose tokens the shards hold."""
    spec = read_spec(shards[0].parent)
    if spec.prefix_tokens:
        raise BlindspotError(
            f"A transcoder reads maps, and {spec.id} gives {spec.prefix_tokens} prefix tokens beside them; choose a "
            "convolutional encoder or a layer of it (encoder.hook), or another dictionary.kind."
        )
    return spec.grid


def _tell(progress: Progress, at: Training) -> None:
    """Report the steps, and how training goes where that can be shown."""
    progress(at.step, at.steps)
    note = getattr(progress, "note", None)
    if note is not None:
        rate = f"{at.tokens_per_second:,.0f} tokens/s"
        note(f"R2 {at.r2:.3f}, L0 {at.l0:.1f}, {at.dead_share:.1%} dead, {rate}")


def thin_out(shards: Sequence[Path], most: int, seed: int, folder: Path, whole: int = 1) -> list[Path]:
    """Token shards with at most `most` rows in all, drawn at random from each shard in proportion to its size.

    Runs of `whole` rows, the tokens of one map, are taken or left as they are.

    Returns:
        `shards` themselves if they have no more rows than that, else new ones in `folder`.
    """
    rows = [len(np.load(shard, mmap_mode="r")) for shard in shards]
    if sum(rows) <= most:
        return list(shards)
    ends = np.floor(np.cumsum(rows) * (most / sum(rows) / whole)).astype(int)
    thinned = []
    for number, (shard, count) in enumerate(zip(shards, np.diff(ends, prepend=0), strict=True)):
        if count == 0:
            continue
        path = folder / f"tokens-{number:05d}.npy"
        if not path.exists():
            runs = np.random.default_rng([seed, number]).choice(rows[number] // whole, count, replace=False)
            chosen = (np.sort(runs)[:, None] * whole + np.arange(whole)).ravel()
            write_array(path, np.load(shard, mmap_mode="r")[chosen])
        thinned.append(path)
    return thinned
