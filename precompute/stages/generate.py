"""Images that a diffusers pipeline draws: from the captions of the real ones, or as many, if it reads none.

Images that the pipeline did not make are left out and counted: those with numbers that are not finite, which it turns
into black or white, and those that a safety filter blackened. `left-out/` holds a file with the reason for each.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.files import write_whole
from engine.pipelines.drawing import NOT_FINITE, BatchDrawer, Prompt, count_truncated, draw
from engine.pipelines.loading import check_pipeline, condition_of, load_pipeline
from engine.pipelines.spec import PipelineSpec
from precompute.engines import Engine, LocalEngine
from precompute.recipe import DrawnReference, Limits, Pipeline
from precompute.runner import Context, Progress, Stage, model_input
from precompute.stages.corpus import (
    ImageRecord,
    SkippedImage,
    image_path,
    images_of,
    save_png,
    stored_image,
    write_manifest,
)

TRIALS = 3
"""Images that are tried, until one can be used, before the long work starts."""


class GenerateStage(Stage):
    """`generate/M`: one image per caption of the real images, or per real image if the pipeline reads no captions.

    `generate/real`: one image per line of a file of captions, where a model is the reference of the others.
    """

    def __init__(self, context: Context, model: str) -> None:
        source = context.source(model)
        assert isinstance(source, Pipeline)
        params, reads = drawing_inputs(f"models.{model}" if model != REAL else REAL, source)
        after = () if model == REAL else (context.images_stage(REAL),)
        if isinstance(source, DrawnReference):
            limits = context.recipe.limits
            params |= {"limits": {"images": limits.images, "seed": limits.seed if limits.images else None}}
            reads += (source.captions,)
        super().__init__(context, f"generate/{model}", params, after, reads)
        self.model, self.pipeline = model, source

    def preflight(self) -> None:
        """Check what configs alone show."""
        check_pipeline(self.pipeline)

    def check(self) -> None:
        """Draw one image."""
        tried = [self._prompts()[:TRIALS]]
        for reasons in self.context.engine.map(_Trial(self.pipeline), tried, self.pipeline.device):
            if all(reasons):
                raise _none_left(self.pipeline, reasons)

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write the images and the manifest; the summary says whether the images belong to captions."""
        summary = generate(self.pipeline, self._prompts(), folder, progress, self.context.engine)
        return summary | {"prompted": bool(condition_of(self.pipeline))}

    def _prompts(self) -> list[Prompt]:
        if isinstance(self.pipeline, DrawnReference):
            return listed_prompts(self.pipeline.captions, self.context.recipe.limits)
        real = images_of(self.context, REAL)
        if condition_of(self.pipeline):
            return prompts_of(real, self.model)
        return [Prompt(position, "") for position in range(len(real))]


def drawing_inputs(key: str, source: PipelineSpec) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """`params` and `reads` of a stage that draws with a pipeline: settings and ids, folders and files by contents.

    Raises
    ------
    BlindspotError
        If one of its models is a path and there is nothing.
    """
    params: dict[str, Any] = {}
    reads: tuple[Path, ...] = ()
    for name, ref in source.model_keys().items():
        found, more = model_input(f"{key}.{name}", ref, {}, files=name != "unet")
        reads += more
        params |= {"model" if name == "pipeline" else name: found["model"]} if found else {}
    settings = source.with_models(lambda name, ref: "").to_dict()
    return {name: value for name, value in settings.items() if name not in NOT_DECIDING} | params, reads


NOT_DECIDING = {"pipeline", "config", "unet", "batch"}
"""Keys of a pipeline that are told by the contents of folders or by ids, or decide nothing."""


def _until_empty(reasons: Iterator[str]) -> Iterator[str]:
    """The reasons up to the first empty one, which is the last."""
    for reason in reasons:
        yield reason
        if not reason:
            return


def listed_prompts(path: Path, limits: Limits) -> list[Prompt]:
    """The captions in a text file, one in each line; a random sample of them, in their order, if there are too many.

    Raises
    ------
    BlindspotError
        If there is no such file, or no caption in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BlindspotError(f"The captions {path} cannot be read: {error}; give a text file in UTF-8.") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise BlindspotError(f"The captions {path} are empty: write one caption in each line.")
    numbers = [*range(len(captions))]
    if limits.images is not None and limits.images < len(captions):
        numbers = sorted(np.random.default_rng(limits.seed).choice(len(captions), limits.images, replace=False))
    return [Prompt(position, captions[number]) for position, number in enumerate(numbers)]


def prompts_of(real: Sequence[ImageRecord], name: str) -> list[Prompt]:
    """The captions to draw.

    Raises
    ------
    BlindspotError
        If no real image has a caption.
    """
    prompts = [Prompt(position, image.caption) for position, image in enumerate(real) if image.caption]
    if not prompts:
        raise BlindspotError(
            f"models.{name} draws from the captions of the real images, but none of the {len(real)} has one; add a "
            "metadata.jsonl with the columns file_name and text to their folder."
        )
    return prompts


@dataclass
class _Trial:
    """Worker: draws prompts, one by one, up to the first image that can be used; gives why the others cannot."""

    source: Pipeline

    def __call__(self, items: Sequence[list[Prompt]]) -> Iterator[list[str]]:
        pipeline = load_pipeline(self.source)
        for prompts in items:
            yield list(_until_empty(draw(pipeline, self.source, [prompt])[0].left_out for prompt in prompts))


class _DrawnBatch(NamedTuple):
    """What became of a batch of prompts."""

    drawn: int
    """Images, those left out included; those that were there already are not."""
    truncated: int
    """Prompts longer than the pipeline reads."""
    at_once: int
    """Images that the device has memory for."""


@dataclass
class _Draw:
    """Worker: draws batches of prompts as PNG files, or marks of those left out, which are kept if they are there."""

    source: Pipeline
    folder: Path
    drawer: BatchDrawer | None = field(default=None, init=False)

    def __call__(self, items: Sequence[Sequence[Prompt]]) -> Iterator[_DrawnBatch]:
        for prompts in items:
            self.drawer = self.drawer or BatchDrawer(load_pipeline(self.source), self.source)
            places = [_places(self.folder, prompt) for prompt in prompts]
            missing = () if _all_there(places) else prompts
            for (path, mark), one in zip(places, self.drawer(missing), strict=False):
                if one.left_out:
                    _mark(mark, one.left_out)
                else:
                    save_png(one.image, path)
            truncated = count_truncated(self.drawer.pipeline, self.source, prompts)
            yield _DrawnBatch(len(missing), truncated, self.drawer.batch)


def _places(folder: Path, prompt: Prompt) -> tuple[Path, Path]:
    """Where the image of a prompt is, or why it is left out."""
    path = image_path(folder, prompt.position)
    return path, folder / "left-out" / f"{path.stem}.txt"


def _all_there(places: Sequence[tuple[Path, Path]]) -> bool:
    return all(path.exists() or mark.exists() for path, mark in places)


def generate(
    source: Pipeline, prompts: Sequence[Prompt], folder: Path, progress: Progress, engine: Engine | None = None
) -> dict[str, int]:
    """Draw one image per prompt as PNG files; those that are there already are kept.

    Batches are cut from the list of prompts, so an interrupted run draws the same batches as an undisturbed one.

    Parameters
    ----------
    source : the pipeline and its settings.
    prompts : what to draw.
    folder : the stage's folder; gets `images/` and the manifest.
    progress : called with the images drawn and all images.
    engine : where they are drawn; here if not given.

    Raises
    ------
    BlindspotError
        If the pipeline cannot be loaded or called, its scheduler is not known or does not fit, or no image can be used.
    """
    batches = [prompts[start : start + source.batch] for start in range(0, len(prompts), source.batch)]
    there = [_all_there([_places(folder, prompt) for prompt in batch]) for batch in batches]
    done = sum(len(batch) for batch, drawn in zip(batches, there, strict=True) if drawn)
    progress(done, len(prompts))
    found: list[_DrawnBatch] = []
    if not all(there):
        # Those that are there come last, only to count the prompts that are too long.
        order = sorted(range(len(batches)), key=there.__getitem__)
        worker = _Draw(source, folder)
        for one in (engine or LocalEngine()).map(worker, [batches[at] for at in order], source.device):
            found.append(one)
            done += one.drawn
            progress(done, len(prompts))
    images, skipped = [], []
    for prompt in prompts:
        path, mark = _places(folder, prompt)
        if path.exists():
            with Image.open(path) as image:
                images.append(stored_image(path, folder, prompt.text or None, image.size))
        else:
            file, kind = f"{folder.parent.name}/{folder.name}/images/{path.name}", mark.read_text(encoding="utf-8")
            skipped.append(SkippedImage(file, path.stem, f"{file} is left out: {kind}.", kind))
    if not images:
        shutil.rmtree(folder / "left-out")
        raise _none_left(source, [one.kind for one in skipped])
    summary = write_manifest(folder, images, skipped)
    if found:
        summary["truncated"] = sum(one.truncated for one in found)
        if (batch := min(one.at_once for one in found)) < source.batch:
            summary["batch"] = batch
    return summary


def _mark(path: Path, reason: str) -> None:
    write_whole(path, lambda partial: partial.write_text(reason, encoding="utf-8"))


def _none_left(source: Pipeline, reasons: Sequence[str]) -> BlindspotError:
    """No image can be used: why, and what helps."""
    kind = Counter(reasons).most_common(1)[0][0]
    remedy = "its safety filter replaced them; choose other captions"
    if kind == NOT_FINITE:
        remedy = "its networks give NaN or infinite numbers"
        remedy += (
            "; its weights are damaged, or its scheduler does not fit"
            if source.dtype == "float32"
            else (f" in {source.dtype}; set the model's dtype to float32")
        )
    return BlindspotError(f"None of the {len(reasons)} images that {source.pipeline} drew can be used: {remedy}.")
