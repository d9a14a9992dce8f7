"""Tokens to sparse codes to image energies, with their statistics.

`codes-*.npz` holds the codes of one token shard. When all are there they are joined into `codes/` and `energy/`, each a
CSR of three .npy files as the atlas keeps them, and `statistics.npz` (image ids count from 0 within the source).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from engine.atlas.schema import index_dtype
from engine.atlas.storage import CSR
from engine.blindspots.energy import EnergyPass, SourceEnergies
from engine.dictionary.base import Dictionary
from engine.files import write_arrays
from engine.vision.spec import EncoderSpec
from precompute.plan import Progress
from precompute.stages.encode import token_shards

STATISTICS = "statistics.npz"
EXEMPLARS = 16
"""Images remembered per concept and source."""
ROWS = 16_384
"""Tokens whose codes are computed at once."""
SMALLEST = np.float16(6e-8)
"""The smallest code that float16 can hold; smaller ones count as zero."""
LARGEST = np.finfo(np.float16).max


def measure(
    dictionary: Dictionary, spec: EncoderSpec, tokens: Path, folder: Path, progress: Progress
) -> dict[str, int]:
    """Encode all token shards of a source with the dictionary and sum their codes; finished shards are kept.

    Args:
        dictionary: on its device.
        spec: the encoder's, for the tokens per image.
        tokens: folder of the source's encode stage.
        folder: the stage's folder.
        progress: called with the shards done and all shards.
    """
    shards = token_shards(tokens)
    parts = [folder / f"codes-{number:05d}.npz" for number in range(len(shards))]
    for number, (shard, part) in enumerate(zip(shards, parts, strict=True), start=1):
        if not part.exists():
            found = sparse_codes(dictionary, np.load(shard, mmap_mode="r"))
            write_arrays(part, indptr=found.indptr, indices=found.indices, values=found.values)
        progress(number, len(shards))
    found_parts = (_load(part, dictionary.concepts) for part in parts)
    return sum_up(found_parts, dictionary.concepts, spec.tokens, spec.prefix_tokens, folder)


def sum_up(parts: Iterable[CSR], concepts: int, tokens: int, prefix_tokens: int, folder: Path) -> dict[str, int]:
    """Join the codes of a source, sum them per image and keep codes, energies and statistics in the stage's folder.

    Args:
        parts: codes of whole images, in order.
        concepts: size of the dictionary.
        tokens: tokens per image, prefix first.
        prefix_tokens: how many of them are no patches.
        folder: the stage's folder.
    """
    accumulator = EnergyPass(concepts, tokens, prefix_tokens, exemplars=EXEMPLARS)
    codes, energy = [], []
    for found in parts:
        codes.append(found)
        summed = accumulator.add(found.indptr, found.indices, found.values)
        indices = summed.indices.astype(found.indices.dtype)
        energy.append(CSR(summed.indptr.astype(np.int64), indices, summed.data, concepts))
    CSR.concatenate(codes).save(folder / "codes", np.float16)
    CSR.concatenate(energy).save(folder / "energy", np.float32)
    _write_statistics(folder / STATISTICS, accumulator.finish())
    return {"codes": int(sum(len(found.values) for found in codes))}


def sparse_codes(dictionary: Dictionary, tokens: np.ndarray) -> CSR:
    """The codes of tokens `[N, dim]` as CSR, `[N, concepts]`."""
    device = next(dictionary.parameters()).device
    rows = max(1, ROWS // dictionary.together) * dictionary.together
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(tokens), rows):
            block = torch.from_numpy(np.array(tokens[start : start + rows], np.float32)).to(device)
            found = dictionary.encode(block)
            blocks.append(_rows(found.indices.cpu().numpy(), found.values.float().cpu().numpy(), dictionary.concepts))
    return CSR.concatenate(blocks)


def _rows(indices: np.ndarray, values: np.ndarray, concepts: int) -> CSR:
    """Codes of a fixed number per row, `[N, k]` each, without their zeros."""
    order = np.argsort(indices, axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    values = np.minimum(np.take_along_axis(values, order, axis=1), LARGEST)
    active = values >= SMALLEST
    indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int64)
    return CSR(indptr, indices[active].astype(index_dtype(concepts)), values[active], concepts)


def read_statistics(folder: Path) -> dict[str, np.ndarray]:
    """Per concept: `sum`, `sum_sq`, `max`, `fires`, `images_active`, `exemplars` and `scores`; and `images`."""
    with np.load(folder / STATISTICS) as stored:
        return dict(stored)


def _write_statistics(path: Path, found: SourceEnergies) -> None:
    plain = {name: value for name, value in found._asdict().items() if name != "moments"}
    write_arrays(path, **plain, **{name: np.asarray(value) for name, value in found.moments._asdict().items()})


def _load(part: Path, concepts: int) -> CSR:
    with np.load(part) as stored:
        return CSR(stored["indptr"], stored["indices"], stored["values"], concepts)
