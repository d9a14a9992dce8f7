"""Tokens to sparse codes to image energies, with their statistics.

`codes-*.npz` holds the codes of one token shard. When all are there they are joined, one after the other, into `codes/`
and `energy/`, each a CSR of three .npy files as the atlas keeps them, and `statistics.npz` (image ids count from 0
within the source); then they are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from engine.atlas.schema import index_dtype
from engine.atlas.storage import CSR, CSRAppender, CSRFolder
from engine.atlas.tables import energies_table, exemplars_table
from engine.atlas.writer import AtlasWriter
from engine.blindspots.energy import EnergyPass
from engine.blindspots.significance import Moments
from engine.devices import pick_device
from engine.dictionary.base import CONFIG, Dictionary
from engine.dictionary.tokens import first_unusable
from engine.errors import BlindspotError
from engine.files import read_arrays, read_json, write_arrays
from engine.vision.spec import EncoderSpec
from precompute.corpora.records import read_manifest
from precompute.engines import Engine, LocalEngine
from precompute.runner import Context, Progress, Stage
from precompute.stages.corpus import first_images
from precompute.stages.dictionary import dictionary_folder
from precompute.stages.encode import read_spec, token_shards

STATISTICS = "statistics.npz"
EXEMPLARS = 16
"""Images remembered per concept and source."""
ROWS = 16_384
"""Tokens whose codes are computed at once."""
SMALLEST = np.float16(6e-8)
"""The smallest code that float16 can hold; smaller ones count as zero."""
LARGEST = 65_488
"""Codes must stay below: float16 rounds larger ones to its largest number, 65504, which stands for anything above."""


class EnergiesStage(Stage):
    """`energies/S`: the codes of a source's tokens, the energies of its images, their statistics."""

    unit = "shards"

    def __init__(self, context: Context, source: str) -> None:
        super().__init__(context, f"energies/{source}", after=("dictionary", f"encode/{source}"))
        self.source, self.tokens = source, context.folder(f"encode/{source}")

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write codes, energies and statistics."""
        context, spec = self.context, read_spec(self.tokens)
        names = _Files(context.folder(context.images_stage(self.source)))
        worker = _Coder(dictionary_folder(context), context.recipe.dictionary.device, spec.tokens, names)
        return measure_energies(worker, spec, self.tokens, folder, progress, engine=context.engine)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the tables `energies` and `exemplars`, and the matrices of every source."""
        energies, exemplars = [], []
        for name, start in first_images(context).items():
            found = statistics_of(context, name)
            moments = Moments(int(found["images"]), found["sum"], found["sum_sq"])
            energies.append(energies_table(name, moments, found["max"], found["fires"], found["images_active"]))
            images = np.where(found["exemplars"] >= 0, found["exemplars"] + start, -1)
            exemplars.append(exemplars_table(name, images, found["scores"]))
            for kind in ("codes", "energy"):
                writer.write_csr(f"{kind}/{name}", *_stored(context, name, kind)[:3])
        writer.write_table("energies", pd.concat(energies))
        writer.write_table("exemplars", pd.concat(exemplars))


def codes_of(context: Context, source: str) -> sparse.csr_matrix:
    """The token codes of a source, float32 `[tokens, concepts]`."""
    return _stored(context, source, "codes").rows()


def stored_codes(context: Context, source: str) -> CSRFolder:
    """The token codes of a source, `[tokens, concepts]`, which stay on disk."""
    return CSRFolder(context.folder(f"energies/{source}") / "codes", context.work.summary("dictionary")["concepts"])


def stored_energy(context: Context, source: str) -> CSRFolder:
    """The image energies of a source, `[images, concepts]`, which stay on disk."""
    return CSRFolder(context.folder(f"energies/{source}") / "energy", context.work.summary("dictionary")["concepts"])


def energy_of(context: Context, source: str) -> sparse.csr_matrix:
    """The image energies of a source, float32 `[images, concepts]`."""
    return _stored(context, source, "energy").rows()


def _stored(context: Context, source: str, kind: str) -> CSR:
    return CSR.open(context.folder(f"energies/{source}") / kind, context.work.summary("dictionary")["concepts"])


def statistics_of(context: Context, source: str) -> dict[str, np.ndarray]:
    """The statistics of a source, see `read_statistics`."""
    return read_statistics(context.folder(f"energies/{source}"))


def live_concepts(context: Context) -> np.ndarray:
    """The concepts that fire in any source, bool `[concepts]`."""
    return np.any([statistics_of(context, name)["fires"] > 0 for name in context.sources], axis=0)


def read_statistics(folder: Path) -> dict[str, np.ndarray]:
    """Per concept: `sum`, `sum_sq`, `max`, `fires`, `images_active`, `exemplars` and `scores`; and `images`."""
    return read_arrays(folder / STATISTICS)


class _Files(Sequence[str]):
    """The names of a source's images, read when one is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __len__(self) -> int:
        return len(read_manifest(self._folder))

    def __getitem__(self, image: Any) -> Any:
        return read_manifest(self._folder)[image].file


class _Part(NamedTuple):
    """The codes of a shard of tokens."""

    shard: Path
    """Its tokens."""
    first: int
    """Its first image."""
    codes: Path
    """The file for its codes."""


@dataclass
class _Coder:
    """Worker: writes the codes of shards of tokens, as `measure_energies` says."""

    dictionary: Dictionary | Path
    """On its device; or the folder that it is loaded from."""
    device: str
    tokens: int
    """Of an image."""
    files: Sequence[str] = ()

    def __call__(self, items: Sequence[_Part]) -> Iterator[None]:
        for part in items:
            if not part.codes.exists():
                self._encode(part)
            yield

    def _encode(self, part: _Part) -> None:
        if isinstance(self.dictionary, Path):
            self.dictionary = Dictionary.from_pretrained(self.dictionary, pick_device(self.device))
        stored = np.load(part.shard, mmap_mode="r")
        if (row := first_unusable(stored)) is not None:
            image = part.first + row // self.tokens
            raise BlindspotError(
                f"The stored tokens of the image {self.files[image] if self.files else image} in {part.shard.parent} "
                f"are not finite or more than {stored.dtype} holds: delete that folder and run again, with "
                "--set encoder.store=float32 --set encoder.dtype=float32."
            )
        found = sparse_codes(self.dictionary, stored)
        write_arrays(part.codes, indptr=found.indptr, indices=found.indices, values=found.values)


def measure_energies(
    dictionary: Dictionary | _Coder,
    spec: EncoderSpec,
    tokens: Path,
    folder: Path,
    progress: Progress,
    files: Sequence[str] = (),
    engine: Engine | None = None,
) -> dict[str, int]:
    """Encode all token shards of a source with the dictionary and sum their codes; finished shards are kept.

    Parameters
    ----------
    dictionary : on its device, or what loads it where the codes are computed.
    spec : the encoder's, for the tokens per image.
    tokens : folder of the source's encode stage.
    folder : the stage's folder.
    progress : called with the shards done and all shards.
    files : names of the images, for messages.
    engine : where the codes are computed; here if not given.

    Raises
    ------
    BlindspotError
        If a token that an older version stored, or a code, is not finite or more than half precision holds.
    """
    coder = _Coder(dictionary, "auto", spec.tokens, files) if isinstance(dictionary, Dictionary) else dictionary
    parts: list[_Part] = []
    first = 0
    for number, shard in enumerate(token_shards(tokens)):
        parts.append(_Part(shard, first, folder / f"codes-{number:05d}.npz"))
        first += len(np.load(shard, mmap_mode="r")) // spec.tokens
    left = [part for part in parts if not part.codes.exists()]
    done = len(parts) - len(left)
    progress(done, len(parts))
    for _ in (engine or LocalEngine()).map(coder, left, coder.device):
        done += 1
        progress(done, len(parts))
    concepts = _concepts(coder.dictionary)
    codes = (CSR(**read_arrays(part.codes), concepts=concepts) for part in parts)
    summary = sum_codes(codes, concepts, spec.tokens, spec.prefix_tokens, folder)
    for part in parts:
        part.codes.unlink()
    return summary


def _concepts(dictionary: Dictionary | Path) -> int:
    if isinstance(dictionary, Path):
        return read_json(dictionary / CONFIG)["concepts"]
    return dictionary.concepts


def sum_codes(parts: Iterable[CSR], concepts: int, tokens: int, prefix_tokens: int, folder: Path) -> dict[str, int]:
    """Join the codes of a source, sum them per image and write codes, energies and statistics, one part at a time.

    Parameters
    ----------
    parts : codes of whole images, in order.
    concepts : size of the dictionary.
    tokens : tokens per image, prefix first.
    prefix_tokens : how many of them are no patches.
    folder : the stage's folder.
    """
    accumulator = EnergyPass(concepts, tokens, prefix_tokens, exemplars=EXEMPLARS)
    codes = CSRAppender(folder / "codes", concepts, np.float16)
    energy = CSRAppender(folder / "energy", concepts, np.float32)
    for found in parts:
        require_codes(found.values)
        codes.append(found.indptr, found.indices, found.values)
        summed = accumulator.add(found.indptr, found.indices, found.values)
        energy.append(summed.indptr, summed.indices, summed.data)
    codes.close()
    energy.close()
    measured = accumulator.finish()._asdict()
    arrays = measured | measured.pop("moments")._asdict()
    write_arrays(folder / STATISTICS, **{name: np.asarray(value) for name, value in arrays.items()})
    return {"codes": codes.entries}


def sparse_codes(dictionary: Dictionary, tokens: np.ndarray) -> CSR:
    """The codes of tokens `[N, dim]` as CSR, `[N, concepts]`; refuses those that `require_codes` does."""
    device = next(dictionary.parameters()).device
    rows = max(1, ROWS // dictionary.group_size) * dictionary.group_size
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(tokens), rows):
            block = torch.from_numpy(np.array(tokens[start : start + rows], np.float32)).to(device)
            found = dictionary.encode(block)
            blocks.append(_rows(found.indices.cpu().numpy(), found.values.float().cpu().numpy(), dictionary.concepts))
    return CSR.concatenate(blocks)


def require_codes(values: np.ndarray) -> None:
    """Raise `BlindspotError` if a code is NaN, or too large for the float16 that an atlas stores."""
    if not (values < LARGEST).all():
        largest = "not a number" if np.isnan(values).any() else f"as large as {values.max():.6g}"
        raise BlindspotError(
            f"Codes are {largest}, where an atlas holds numbers below {LARGEST}: the dictionary does not fit these "
            "tokens; train one on them (without dictionary.load), or use the encoder and layer that it was made for."
        )


def _rows(indices: np.ndarray, values: np.ndarray, concepts: int) -> CSR:
    """Codes of a fixed number per row, `[N, k]` each, without their zeros."""
    order = np.argsort(indices, axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    require_codes(values)
    active = values >= SMALLEST
    indptr = np.concatenate([[0], np.cumsum(active.sum(axis=1))]).astype(np.int64)
    return CSR(indptr, indices[active].astype(index_dtype(concepts)), values[active], concepts)
