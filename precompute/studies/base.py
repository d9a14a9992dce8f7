"""What all studies share: a score drawn at any strength, the study's result, and its files.

OUT/table.csv        one row per strength, level, unit, method or ratio; further tables beside it
OUT/figure.html      and the plotly library that it uses
OUT/grid.png         with its origin inside
OUT/study.json       settings, tables, versions; written last, so a folder with it is whole
"""

from __future__ import annotations

import io
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from engine.atlas import Atlas
from engine.blindspots.metrics import frechet_distance
from engine.devices import drawing_placement
from engine.errors import BlindspotError
from engine.figures.images import SIDE, Block
from engine.figures.style import concept_names
from engine.files import write_json
from engine.reports.files import atlas_origin, png_with_origin, safe_table, write_figure, write_script
from engine.samplers.base import OnStep, Samples, Score
from engine.samplers.calibration import (
    FEWEST,
    Trial,
    Trials,
    mean_of_best,
    nearest,
    run_trial,
    sample_calibrated,
)
from engine.samplers.generation import GenerationRequest, Reference, best_real_images, default_cap
from engine.samplers.metrics import PriorReference
from engine.samplers.models import ModelBundle
from engine.samplers.records import to_pil
from engine.samplers.registry import WITHOUT_STRENGTH, SamplerSettings, create, require_method
from engine.samplers.scores import ConceptScore

TOLERANCE = 0.05
"""Share of a target that a calibrated mean score may miss."""
RECORD = "study.json"
LIBRARIES = ("torch", "diffusers", "transformers", "numpy")
"""Whose versions an image may depend on."""
Progress = Callable[[str], OnStep | None]
"""Given the name of a part of a study, returns what is called after each of its steps."""
Report = Callable[[int, int], None]
"""Called with the work done and all work."""


def silent(part: str) -> None:
    """Report no steps."""


class CalibratedTrial(NamedTuple):
    """The trial whose mean score is nearest to a target."""

    trial: Trial
    note: str
    """Why it missed the target; empty where it did not."""


@dataclass(frozen=True)
class StudySubject:
    """One score and all drawings of it so far."""

    models: ModelBundle
    """Prior and encoder."""
    request: GenerationRequest
    """Method, count, seed and steps of every drawing; its strength is the first that a search tries."""
    score: Score
    """What the images should excite."""
    references: tuple[Reference, ...]
    """The real images with the highest scores, best first."""
    trials: dict[float | None, Trials] = field(default_factory=dict)
    """Those of a search by its target, those drawn at a given strength by None."""

    @property
    def best(self) -> float:
        """Mean score of the references.

        Raises
        ------
        BlindspotError
            If there are none.
        """
        return mean_of_best([reference.score for reference in self.references])

    def settings(self, strength: float) -> SamplerSettings:
        """The sampler's settings at a strength."""
        return replace(self.request, strength=strength, score_cap=default_cap(self.references), guidance_end=None)

    def draw(self, strength: float, on_step: OnStep | None = None) -> Trial:
        """Draw at a strength, or return the earlier trial; arguments and errors as in `Sampler.sample`."""
        request = self.request
        return run_trial(
            self.trials.setdefault(None, {}), strength,
            lambda strength: create(request.method, self.models, self.settings(strength)),
            self.score, request.count, request.seed, on_step,
        )  # fmt: skip

    def reach(self, target: float, start: float | None = None, on_step: OnStep | None = None) -> CalibratedTrial:
        """Draw at the mean score `target`, or as near to it as the search comes.

        Parameters
        ----------
        target
            The mean score.
        start
            First strength to try; the request's by default.
        on_step
            As in `Sampler.sample`, for every trial.

        Raises
        ------
        BlindspotError
            If nothing could be drawn at all.
        Cancelled
            If `on_step` returned False.
        """
        request, trials = self.request, self.trials.setdefault(target, {})
        try:
            _, found = sample_calibrated(
                lambda strength: create(request.method, self.models, self.settings(strength).towards(target)),
                self.score, target, count=request.count, start=start or request.strength, seed=request.seed,
                on_step=on_step, trials=trials,
            )  # fmt: skip
        except BlindspotError as error:
            if not trials:
                raise
            return CalibratedTrial(nearest(trials, target), str(error))
        trial = trials[found.strength]
        missed = abs(trial.mean - target) > max(TOLERANCE * abs(target), trial.error)
        note = f"{found.evaluations} trials came no nearer than {trial.mean:.4g}." if missed else ""
        return CalibratedTrial(trial, note)


@dataclass(frozen=True)
class ConceptSubject(StudySubject):
    """A concept of an atlas."""

    score: ConceptScore

    def codes_score(self, samples: Samples) -> float:
        """Mean score of the final sparse codes of samples."""
        with torch.no_grad():
            return float(self.score.codes_score(samples.images).mean())


def concept_subject(
    atlas: Atlas, request: GenerationRequest, device: str | None = None, dtype: str | None = None
) -> ConceptSubject:
    """A concept of an atlas as a subject.

    Raises
    ------
    BlindspotError
        If the atlas has no such concept, it is dead or no real image has it; if the method is unknown or has no
        strength, or fewer than `FEWEST` samples are asked for; if there is no such device.
    """
    require_method(request.method)
    if request.method in WITHOUT_STRENGTH:
        raise BlindspotError(
            f"Method {request.method!r} has no strength, so there is nothing to study: choose another."
        )
    if request.count < FEWEST:
        raise BlindspotError(f"A study compares means: draw at least {FEWEST} samples, not {request.count}.")
    models = ModelBundle(atlas, *drawing_placement(device, dtype), request.prior)
    concept = request.concept
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    if atlas.concepts["dead"].iat[concept]:
        raise BlindspotError(
            f"Concept {concept} of atlas {atlas.info.name!r} is dead, no real image excites it: choose a live one."
        )
    subject = ConceptSubject(models, request, score, best_real_images(models, score))
    if subject.best <= 0:
        raise BlindspotError(f"The best real images of concept {concept} score {subject.best:.3g}: choose another one.")
    return subject


class StudyInputs(NamedTuple):
    """What every study is given."""

    atlas: Atlas
    request: GenerationRequest
    """The concept, and how each row is drawn; the strength is the study's own."""
    prior_samples: int
    """Samples of the prior to compare with."""
    progress: Progress = silent
    report: Callable[[str, str], Report] = lambda name, unit: lambda done, total: None
    """Given the name and the unit of other work, returns what its progress is reported to."""
    placement: tuple[str | None, str | None] = (None, None)
    """Device and dtype, see `engine.devices.drawing_placement`."""

    def models(self) -> ModelBundle:
        """The models that the study draws with."""
        return ModelBundle(self.atlas, *drawing_placement(*self.placement), self.request.prior)

    @property
    def name(self) -> str:
        """The concept's label and number."""
        concept = self.request.concept
        return concept_names(self.atlas.concepts["label"].iloc[[concept]], [concept])[0]

    @property
    def subtitle(self) -> str:
        """What every point of a figure rests on."""
        request = self.request
        return (
            f"{request.method}, {request.steps} steps, n = {request.count} images a point, {self.prior_samples} "
            "samples of the prior"
        )

    def reference(self, subject: StudySubject) -> PriorReference:
        """Samples of the prior, with both distances."""
        return PriorReference.sample(
            subject.models, self.request.steps, self.prior_samples, self.request.seed,
            lambda own, seen: frechet_distance(own, seen).distance, self.progress("samples of the prior"),
        )  # fmt: skip

    def settings(self, subject: StudySubject, **more: Any) -> dict[str, Any]:
        """The settings that `study.json` keeps."""
        best = [asdict(reference) for reference in subject.references]
        return {**self.row_settings(), **more, "prior_samples": self.prior_samples, "best_real_score": subject.best,
                "best_real": best, **drawn_by(subject.models)}  # fmt: skip

    def row_settings(self) -> dict[str, Any]:
        """The settings of the request that hold for every row, under their stored names."""
        stored = self.request.parameters()
        return {name: stored[name] for name in ("concept", "method", "count", "steps", "states", "seed")}


def drawn_by(models: ModelBundle) -> dict[str, Any]:
    """What `study.json` says of prior and device."""
    prior = None if models.prior_spec is None else dict(models.prior_spec)
    return {"prior": prior, "device": models.device, "dtype": models.dtype}


class DrawnUnit(NamedTuple):
    """Images of one concept or neuron by one method, for a blinded rating (`engine.ratings`)."""

    unit: str
    """The concept's number, or the neuron's name."""
    kind: str
    """`concept` or `neuron`."""
    method: str
    images: Sequence[Image.Image]


class Study(NamedTuple):
    """The result of a study."""

    what: str
    """`sweep`, `levels`, `neurons`, `methods` or `injection`."""
    atlas: Atlas
    settings: Mapping[str, Any]
    """All that was asked for, and what followed from it."""
    tables: Mapping[str, pd.DataFrame]
    """By name; the first is called `table`."""
    figure: go.Figure
    grid: Image.Image
    drawn: Sequence[DrawnUnit] = ()
    """What can be rated of it."""


def image_block(images: Float[Tensor, "n 3 height width"] | None, caption: str) -> Block:
    """The first of a row's images, or an empty block where none could be drawn."""
    return Block((), "out of reach") if images is None else Block(to_pil(images[: SIDE * SIDE]), caption)


def write_study(study: Study, out: Path, images: bool = False) -> dict[str, Any]:
    """Write a study into the folder `out`, replacing the files of an earlier one; each appears whole.

    With `images`, what can be rated of it is kept too, as `image-<row>-<n>.png`.

    Returns
    -------
    The content of `study.json`.

    Raises
    ------
    BlindspotError
        If the folder cannot be written.
    """
    origin, out = atlas_origin(study.atlas, f"study {study.what}"), Path(os.path.abspath(out))
    tables = {name: json.loads(table.to_json(orient="records", double_precision=12))
              for name, table in study.tables.items()}  # fmt: skip
    versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    document = {**origin, "atlas path": str(study.atlas.path), "settings": dict(study.settings), **tables,
                "versions": versions}  # fmt: skip
    kept = study.drawn if images else ()
    if kept:
        document["images"] = [
            {"unit": one.unit, "kind": one.kind, "method": one.method,
             "files": [f"image-{row:02d}-{place}.png" for place in range(len(one.images))]}
            for row, one in enumerate(kept)
        ]  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=out) as partial:
            _write_parts(study, Path(partial), origin)
            for row, one in enumerate(kept):
                for place, image in enumerate(one.images):
                    image.save(Path(partial) / f"image-{row:02d}-{place}.png")
            (out / RECORD).unlink(missing_ok=True)
            for file in sorted(Path(partial).iterdir()):
                os.replace(file, out / file.name)
        write_json(out / RECORD, document)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BlindspotError(
            f"The study cannot be written to {out}: {error.strerror}; choose another --out."
        ) from error
    return document


def _write_parts(study: Study, folder: Path, origin: dict[str, str]) -> None:
    """Write everything but the record."""
    for name, table in study.tables.items():
        safe_table(table).to_csv(folder / f"{name}.csv", index=False)
    write_figure(study.figure, folder / "figure", ("html",), origin)
    write_script(folder)
    drawn = io.BytesIO()
    study.grid.save(drawn, "PNG")
    (folder / "grid.png").write_bytes(png_with_origin(drawn.getvalue(), origin))
