"""A synthetic atlas: its codes, images and atoms are invented, everything after them is what a recipe runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from engine.atlas.schema import REAL
from engine.atlas.storage import CSR
from engine.dictionary.geometry import coherence
from engine.files import write_array, write_arrays, write_json
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig, EncoderSpec
from precompute.build import analysis_stages
from precompute.recipe import Folder, Pipeline, Recipe
from precompute.runner import Build, Context, Progress, Stage, WorkDirectory, build_stages
from precompute.stages.assemble import AssembleStage
from precompute.stages.corpus import LABELS, CorpusStage, images_of
from precompute.stages.dictionary import ATOMS, DictionaryStage, atoms_of, dictionary_folder
from precompute.stages.encode import EMBEDDINGS, SPEC, EncodeStage
from precompute.stages.energies import EnergiesStage, codes_of, energy_of, sum_codes
from precompute.stages.layout import LayoutStage, unit
from precompute.stages.neighbours import NeighboursStage
from precompute.stages.pairing import PairingStage
from precompute.stages.report import SUMMARY, TABLE, ReportStage
from precompute.stages.thumbnails import ThumbnailsStage, link_or_copy, thumb_path
from precompute.stages.words import WordsStage
from precompute.synthetic.codes import CHUNK, as_document
from precompute.synthetic.invention import Invention
from precompute.synthetic.scenes import write_pictures
from precompute.synthetic.world import PREFIX, Size

NAME = "blindspot-atlas/synthetic"
DESCRIPTION = "Invented codes with the marginals of the authors' 32,000 concepts and planted blindspots; no real image."


def synthesize(invented: Invention, out: Path, progress: Callable[[Stage], Progress]) -> Build:
    """Write a synthetic atlas, and `<out>.planted.json` beside it with what is planted in each model.

    Parameters
    ----------
    invented
        What is in it; the same invention gives the same files.
    out
        The atlas's folder; `<out>.work` beside it keeps what the stages made, and can be deleted afterwards.
    progress
        Called once per stage that runs, gives what the stage reports to.

    Raises
    ------
    BlindspotError
        If `out` is something else than an atlas, or the disk is full.
    """

    def stages(work: WorkDirectory, where: Path) -> list[Stage]:
        return synthetic_stages(invented, Context(_recipe(invented), work, where))

    made = build_stages(out, stages, progress)
    write_json(planted_file(made.out), as_document(invented.planted, invented.seed))
    return made


def planted_file(atlas: Path) -> Path:
    """Where the truth about a synthetic atlas is."""
    return atlas.with_name(atlas.name + ".planted.json")


def synthetic_stages(invented: Invention, context: Context) -> list[Stage]:
    """The stages of a recipe whose images, tokens and dictionary are invented instead of read."""
    sources = context.sources
    stages: list[Stage] = [
        *(InventedImages(context, name, invented) for name in sources),
        *(PairingStage(context, name) for name in context.recipe.models),
        InventedDictionary(context, invented),
        *(InventedEnergies(context, name, invented) for name in sources),
        *(InventedEmbeddings(context, name, invented) for name in sources),
        InventedReport(context),
        LayoutStage(context),
        NeighboursStage(context),
        WordsStage(context),
        *analysis_stages(context),
        *(LinkedThumbnails(context, name) for name in sources),
    ]
    return [*stages, AssembleStage(context, stages)]


def _given(invented: Invention) -> dict[str, Any]:
    return {"size": asdict(invented.size), "planted": invented.planted_each, "seed": invented.seed}


class InventedImages(CorpusStage):
    """The images of a source, which are thumbnails, and the real ones' ground truth."""

    def __init__(self, context: Context, source: str, invented: Invention) -> None:
        Stage.__init__(self, context, context.images_stage(source), _given(invented))
        self.source, self.invented = source, invented

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write thumbnails, manifest and labels."""
        invented = self.invented
        if self.source == REAL:
            write_json(folder / LABELS, invented.labels())
        scenes = invented.scenes(self.source)
        return write_pictures(invented.world, scenes, invented.captions, self.source, folder, progress)


class InventedDictionary(DictionaryStage):
    """A dictionary that is its atoms and no more."""

    unit = "tables"

    def __init__(self, context: Context, invented: Invention) -> None:
        Stage.__init__(self, context, "dictionary", _given(invented))
        self.invented = invented

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write the atoms."""
        size = self.invented.size
        dictionary_folder(self.context).mkdir(exist_ok=True)
        write_array(folder / ATOMS, self.invented.atoms)
        return {"kind": "synthetic", "concepts": size.concepts, "dim": size.dim, "sparsity": size.sparsity}


class InventedEnergies(EnergiesStage):
    """Invented codes, and their energies."""

    unit = "images"

    def __init__(self, context: Context, source: str, invented: Invention) -> None:
        Stage.__init__(self, context, f"energies/{source}", _given(invented))
        self.source, self.invented = source, invented

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write codes, energies and statistics."""
        size = self.invented.size
        chunks = _counted(self.invented.codes(self.source), size.images, progress)
        return sum_codes(chunks, size.concepts, size.tokens, PREFIX, folder)


class InventedEmbeddings(EncodeStage):
    """Embeddings that follow from the energies, and the encoder that there would have been."""

    unit = "sources"

    def __init__(self, context: Context, source: str, invented: Invention) -> None:
        Stage.__init__(self, context, f"encode/{source}", after=("dictionary", f"energies/{source}"))
        self.source, self.size = source, invented.size

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the encoder's description and the embeddings."""
        write_json(folder / SPEC, encoder_spec(self.size).to_dict())
        energy, atoms = energy_of(self.context, self.source), atoms_of(self.context)
        write_array(folder / EMBEDDINGS, embeddings(energy, atoms))
        return {"images": self.size.images}


class InventedReport(ReportStage):
    """The report of an invented dictionary."""

    unit = "tables"

    def __init__(self, context: Context) -> None:
        Stage.__init__(self, context, "report", after=("dictionary", f"energies/{REAL}"))

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write summary and table."""
        return _write_report(codes_of(self.context, REAL), atoms_of(self.context), folder)


class LinkedThumbnails(ThumbnailsStage):
    """The invented images once more: they are thumbnails already."""

    unit = "sources"

    def __init__(self, context: Context, source: str) -> None:
        Stage.__init__(self, context, f"thumbs/{source}", after=(context.images_stage(source),))
        self.source = source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Link the images."""
        images = images_of(self.context, self.source)
        for number, image in enumerate(images):
            path = thumb_path(folder, number)
            path.parent.mkdir(exist_ok=True)
            link_or_copy(image.path, path)
        return {"images": len(images)}


def embeddings(energy: sparse.csr_matrix, atoms: np.ndarray) -> np.ndarray:
    """float32 unit vectors `[images, dim]`: the atoms of an image's concepts, weighted by log(1 + energy)."""
    return unit(energy.log1p() @ atoms)


def encoder_spec(size: Size) -> EncoderSpec:
    """The encoder that would give tokens of this size, if there were one."""
    return EncoderSpec(
        id=NAME,
        revision=None,
        layer=None,
        image_size=14 * size.side,
        patch=14,
        grid=(size.side, size.side),
        prefix_tokens=PREFIX,
        dim=size.dim,
        resize="square",
        interpolation="bicubic",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _recipe(invented: Invention) -> Recipe:
    """The choices that an invention shares with a recipe; its images and models stand for none that exist."""
    models: dict[str, Folder | Pipeline] = {
        name: Pipeline(pipeline=NAME, label=name.replace("-", " ").capitalize(), description="Invented.")
        for name in invented.models
    }
    real = Folder(folder=Path("invented"), label="Real images", description="Invented.")
    return Recipe(name="synthetic", description=DESCRIPTION, real=real, models=models, encoder=EncoderConfig(NAME))


def _counted(chunks: Iterable[CSR], images: int, progress: Progress) -> Iterator[CSR]:
    """The same chunks, telling the progress."""
    for number, chunk in enumerate(chunks, start=1):
        yield chunk
        progress(min(number * CHUNK, images), images)


def _write_report(codes: sparse.csr_matrix, atoms: np.ndarray, folder: Path) -> dict[str, float]:
    """Write the report of a dictionary whose tokens are exactly what the codes `[tokens, concepts]` rebuild.

    Usage and coherence are measured. R2 is 1 since no token exists beside its codes, every atom is its own nearest
    point of the data, and no other dictionary was trained to compare with.
    """
    concepts = codes.shape[1]
    fires = np.bincount(codes.indices, minlength=concepts)
    alike = coherence(torch.from_numpy(atoms))
    columns = {
        "fires": fires,
        "coherence": alike.value.numpy(),
        "nearest": alike.nearest.numpy(),
        "hull_distance": np.zeros(concepts, np.float32),
        "stability": np.full(concepts, np.nan, np.float32),
    }
    summary = {
        "tokens": codes.shape[0],
        "r2": 1.0,
        "fvu": 0.0,
        "l0": round(codes.nnz / codes.shape[0], 6),
        "l0_counts": np.bincount(np.diff(codes.indptr)).tolist(),
        "dead_share": round(float((fires == 0).mean()), 6),
        "coherence": round(float(alike.value.mean()), 6),
        "hull": {"distance": 0.0, "uncertainty": 0.0, "points": concepts, "own_points": True},
        "stability": None,
    }
    write_arrays(folder / TABLE, **columns)
    write_json(folder / SUMMARY, summary)
    return {name: summary[name] for name in ("r2", "l0", "dead_share")}
