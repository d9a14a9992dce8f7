"""A synthetic atlas: its codes, images and atoms are invented, everything after them is what a recipe runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from engine.atlas.schema import REAL
from engine.atlas.storage import CSR
from engine.files import write_array, write_json
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderConfig, EncoderSpec
from precompute.analysis_plan import analysis_stages
from precompute.build import Build, build_stages
from precompute.plan import Progress, Stage, WorkDirectory
from precompute.recipe import Folder, Pipeline, Recipe
from precompute.stage_plan import StagePlan, source_stage
from precompute.stages.corpus import LABELS
from precompute.stages.encode import EMBEDDINGS, SPEC
from precompute.stages.energies import sum_up
from precompute.stages.layout import unit
from precompute.synthetic.codes import CHUNK
from precompute.synthetic.invention import Invention
from precompute.synthetic.pictures import write_pictures
from precompute.synthetic.planted import as_document
from precompute.synthetic.report import write_report
from precompute.synthetic.world import PREFIX, Size

NAME = "blindspot-atlas/synthetic"
DESCRIPTION = "Invented codes with the marginals of the authors' 32,000 concepts and planted blindspots; no real image."


def synthesize(invented: Invention, out: Path, progress: Callable[[Stage], Progress]) -> Build:
    """Write a synthetic atlas, and `<out>.planted.json` beside it with what is planted in each model.

    Parameters
    ----------
    invented : what is in it; the same invention gives the same files.
    out : the atlas's folder; `<out>.work` beside it keeps what the stages made, and can be deleted afterwards.
    progress : called once per stage that runs, gives what the stage reports to.

    Raises
    ------
    BlindspotError
        If `out` is something else than an atlas, or the disk is full.
    """
    made = build_stages(out, lambda work, where: SyntheticPlan(invented, work, where).stages(), progress)
    write_json(planted_file(made.out), as_document(invented.planted, invented.seed))
    return made


def planted_file(atlas: Path) -> Path:
    """Where the truth about a synthetic atlas is."""
    return atlas.with_name(atlas.name + ".planted.json")


class SyntheticPlan(StagePlan):
    """The stages of a recipe whose images, tokens and dictionary are invented instead of read.

    Parameters
    ----------
    invented : what is invented.
    work, out : as for a recipe.
    """

    def __init__(self, invented: Invention, work: WorkDirectory, out: Path) -> None:
        super().__init__(_recipe(invented), work, out)
        self.invented = invented
        self.given = {"size": asdict(invented.size), "planted": invented.planted_each, "seed": invented.seed}

    def stages(self) -> list[Stage]:
        """All stages, each after those it reads."""
        stages = [self._pictures(name) for name in self.sources]
        stages += [self._pairing(name) for name in self.recipe.models]
        stages += [self._dictionary(), *(self._energies(name) for name in self.sources)]
        stages += [self._encode(name) for name in self.sources]
        stages += [self._report(), self._layout(), self._index(), self._words(), *analysis_stages(self)]
        stages += [self._thumbs(name) for name in self.sources]
        return [*stages, self._assemble([stage.name for stage in stages])]

    def _pictures(self, name: str) -> Stage:
        invented = self.invented

        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            if name == REAL:
                write_json(folder / LABELS, invented.labels())
            return write_pictures(invented.world, invented.scenes(name), invented.captions, name, folder, progress)

        return Stage(source_stage(self.recipe, name), run, self.given)

    def _dictionary(self) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            size = self.invented.size
            self.dictionary_folder.mkdir(exist_ok=True)
            write_array(folder / "atoms.npy", self.invented.atoms)
            return {"kind": "synthetic", "concepts": size.concepts, "dim": size.dim, "sparsity": size.sparsity}

        return Stage("dictionary", run, self.given, unit="tables")

    def _energies(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            size = self.invented.size
            chunks = _counted(self.invented.codes(name), size.images, progress)
            return sum_up(chunks, size.concepts, size.tokens, PREFIX, folder)

        return Stage(f"energies/{name}", run, self.given)

    def _encode(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            write_json(folder / SPEC, encoder_spec(self.invented.size).to_dict())
            write_array(folder / EMBEDDINGS, embeddings(self.csr(name, "energy"), self.atoms))
            return {"images": self.invented.size.images}

        return Stage(f"encode/{name}", run, after=("dictionary", f"energies/{name}"), unit="sources")

    def _report(self) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            return write_report(self.csr(REAL, "codes"), self.atoms, folder)

        return Stage("report", run, after=("dictionary", f"energies/{REAL}"), unit="tables")

    def _thumbs(self, name: str) -> Stage:
        def run(folder: Path, progress: Progress) -> Mapping[str, Any]:
            for shard in sorted(path for path in self.images_of(name).iterdir() if path.is_dir()):
                shutil.copytree(shard, folder / shard.name, copy_function=_link, dirs_exist_ok=True)
            return {"images": self.invented.size.images}

        return Stage(f"thumbs/{name}", run, after=(source_stage(self.recipe, name),), unit="sources")

    @cached_property
    def atoms(self) -> np.ndarray:
        """The dictionary's atoms, float32 `[concepts, dim]`."""
        return np.load(self.work.folder("dictionary") / "atoms.npy")


def embeddings(energy: sparse.csr_matrix, atoms: np.ndarray) -> np.ndarray:
    """float32 unit vectors `[images, dim]`: the atoms of an image's concepts, weighted by log(1 + energy)."""
    return unit(energy._with_data(np.log1p(energy.data)) @ atoms)


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
    models = {
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


def _link(source: str, target: str) -> None:
    """A second name for a file, or the one that is there already."""
    if not os.path.exists(target):
        os.link(source, target)
