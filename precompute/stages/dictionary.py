"""The sparse dictionary of an atlas: trained on tokens of the real images, or loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from engine.atlas.schema import REAL
from engine.atlas.writer import AtlasWriter
from engine.dictionary.base import CONFIG, WEIGHTS, Dictionary
from engine.dictionary.fitting import fit
from engine.dictionary.published import open_dictionary
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.training import TrainProgress
from engine.errors import BlindspotError
from engine.files import read_json, write_array, write_json
from engine.vision.spec import EncoderConfig
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.encode import read_spec, token_shards

DICTIONARY, ATOMS, REPORT = "dictionary", "atoms.npy", "report.json"
CHECKPOINTS, TRAINING = "checkpoints", "training"


class DictionaryStage(Stage):
    """`dictionary`: the one dictionary of all sources."""

    unit = "steps"

    def __init__(self, context: Context) -> None:
        spec = context.recipe.dictionary
        # The size of a training batch decides the result, unlike the others'.
        trained = fingerprint_fields(spec, "load", "report_seeds") | {"batch": spec.batch}
        params, reads = ({"load": True}, (Path(spec.load),)) if spec.load else (trained, ())
        if spec.load and not Path(spec.load).exists():
            params, reads = {"load": str(spec.load)}, ()
        super().__init__(context, "dictionary", params, [f"encode/{name}" for name in trained_on(context)], reads)

    def preflight(self) -> None:
        """Open the dictionary to load, which is fetched if it must be, and compare its width with the encoder's.

        A folder that is empty may be filled while the models draw, by a training that runs beside.
        """
        spec, encoder = self.context.recipe.dictionary, self.context.recipe.encoder
        waited_for = spec.load is not None and Path(spec.load).is_dir() and not any(Path(spec.load).iterdir())
        if spec.load is not None and not waited_for:
            dim = open_dictionary(spec.load).dim
            width = None if encoder.hook else _token_width(encoder)
            if width not in (None, dim):
                raise _misfit(spec, dim, width)

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write `dictionary/`; the summary is what the atlas's header says of it."""
        return make_dictionary(self.context.recipe.dictionary, training_shards(self.context), folder, progress)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the dictionary's files and the index of its atoms."""
        writer.write_index("atoms.faiss", atoms_of(context))
        for path in sorted(dictionary_folder(context).iterdir()):
            writer.add_file(f"dictionary/{path.name}", path)


def trained_on(context: Context) -> tuple[str, ...]:
    """The sources whose tokens the dictionary is trained on, the real one first."""
    return context.sources if context.recipe.dictionary.sources == "all" else (REAL,)


def training_shards(context: Context) -> list[Path]:
    """Their token shards."""
    return [shard for name in trained_on(context) for shard in token_shards(context.folder(f"encode/{name}"))]


def dictionary_folder(context: Context) -> Path:
    """Where the finished dictionary is."""
    return context.folder("dictionary") / DICTIONARY


def atoms_of(context: Context) -> np.ndarray:
    """The dictionary's atoms, float32 `[concepts, dim]`; of an invented dictionary there is nothing else."""
    path = context.folder("dictionary") / ATOMS
    if path.exists():
        return np.load(path)
    return Dictionary.from_pretrained(dictionary_folder(context)).atoms().float().numpy()


def make_dictionary(spec: DictionarySpec, shards: Sequence[Path], folder: Path, progress: Progress) -> dict[str, Any]:
    """Train or load the dictionary and save it in the stage's folder, from where a killed run left off.

    Parameters
    ----------
    spec : what to train, or what to load.
    shards : token shards `[tokens, dim]`.
    folder : the stage's folder; gets `dictionary/` and `report.json`.
    progress : called with the steps done and all steps.

    Returns
    -------
    dict
        What the atlas's header says of the dictionary.

    Raises
    ------
    BlindspotError
        If the dictionary to load is missing, or does not fit the encoder's tokens.
    """
    saved = [folder / REPORT, *(folder / DICTIONARY / name for name in (CONFIG, WEIGHTS))]
    if all(path.exists() for path in saved):
        return read_json(folder / REPORT)
    reached: dict[str, float] = {}
    if spec.load is not None:
        dictionary = open_dictionary(spec.load)
        dim = np.load(shards[0], mmap_mode="r").shape[1]
        if dictionary.dim != dim:
            raise _misfit(spec, dictionary.dim, dim)
    else:
        dictionary, reached = _train(spec, shards, folder, progress)
    dictionary.save_pretrained(folder / DICTIONARY)
    report = {
        "kind": dictionary.kind,
        "concepts": dictionary.concepts,
        "dim": dictionary.dim,
        "sparsity": dictionary.sparsity,
        "origin": "trained" if spec.load is None else "loaded",
        **reached,
    }
    write_json(folder / REPORT, report)
    for scratch in (CHECKPOINTS, TRAINING):
        shutil.rmtree(folder / scratch, ignore_errors=True)
    return report


def _token_width(encoder: EncoderConfig) -> int | None:
    """The width of an encoder's tokens, if its config says it; encoding says what else is wrong."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(encoder.id, revision=encoder.revision, trust_remote_code=False)
    except Exception:
        return None
    width = getattr(getattr(config, "vision_config", config), "hidden_size", None)
    return width if isinstance(width, int) else None


def _misfit(spec: DictionarySpec, dim: int, width: int) -> BlindspotError:
    return BlindspotError(
        f"The dictionary {spec.load} reads tokens of width {dim}, but the encoder gives {width}; use the encoder and "
        "layer that it was trained on."
    )


def _train(
    spec: DictionarySpec, shards: Sequence[Path], folder: Path, progress: Progress
) -> tuple[Dictionary, dict[str, float]]:
    grid = _grid(shards) if spec.kind == "transcoder" else None
    whole = grid[0] * grid[1] if grid else 1

    def report_progress(at: TrainProgress) -> None:
        progress(at.step, at.steps)
        if note := getattr(progress, "note", None):
            rate = f"{at.tokens_per_second:,.0f} tokens/s"
            note(f"R2 {at.r2:.3f}, L0 {at.l0:.1f}, {at.dead_share:.1%} dead, {rate}")

    dictionary, report = fit(
        subsample_tokens(shards, spec.tokens, spec.seed, folder / TRAINING, whole),
        spec,
        grid=grid,
        on_progress=report_progress,
        checkpoint_dir=folder / CHECKPOINTS,
    )
    return dictionary, {name: round(value, 6) for name, value in asdict(report).items() if name != "seconds"}


def _grid(shards: Sequence[Path]) -> tuple[int, int]:
    """Height and width of the maps whose tokens the shards hold."""
    spec = read_spec(shards[0].parent)
    if spec.prefix_tokens:
        raise BlindspotError(
            f"A transcoder reads maps, and {spec.id} gives {spec.prefix_tokens} prefix tokens beside them; choose a "
            "convolutional encoder or a layer of it (encoder.hook), or another dictionary.kind."
        )
    return spec.grid


def subsample_tokens(shards: Sequence[Path], most: int, seed: int, folder: Path, whole: int = 1) -> list[Path]:
    """Token shards with at most `most` rows in all, drawn at random from each shard in proportion to its size.

    Runs of `whole` rows, the tokens of one map, are taken or left as they are. Returns `shards` themselves if they have
    no more rows than that, else new ones in `folder`.
    """
    rows = [len(np.load(shard, mmap_mode="r")) for shard in shards]
    if sum(rows) <= most:
        return list(shards)
    ends = np.floor(np.cumsum(rows) * (most / sum(rows) / whole)).astype(int)
    chosen_shards = []
    for number, (shard, count) in enumerate(zip(shards, np.diff(ends, prepend=0), strict=True)):
        if count == 0:
            continue
        path = folder / f"tokens-{number:05d}.npy"
        if not path.exists():
            runs = np.random.default_rng([seed, number]).choice(rows[number] // whole, count, replace=False)
            chosen = (np.sort(runs)[:, None] * whole + np.arange(whole)).ravel()
            write_array(path, np.load(shard, mmap_mode="r")[chosen])
        chosen_shards.append(path)
    return chosen_shards
