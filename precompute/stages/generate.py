"""Images that a diffusers pipeline draws: from the captions of the real ones, or as many, if it reads none.

Images that the pipeline did not make are left out and counted: those with numbers that are not finite, which it turns
into black or white, and those that a safety filter blackened. `left-out/` holds a file with the reason for each.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from engine.atlas.schema import REAL
from engine.errors import BlindspotError
from engine.files import write_whole
from engine.pipelines.drawing import NOT_FINITE, BatchDrawer, Prompt, count_truncated, draw
from engine.pipelines.loading import check_pipeline, condition_of, load_pipeline
from engine.pipelines.spec import PipelineSpec
from precompute.recipe import Pipeline
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
    """`generate/M`: one image per caption of the real images, or per real image if the pipeline reads no captions."""

    def __init__(self, context: Context, model: str) -> None:
        source = context.source(model)
        assert isinstance(source, Pipeline)
        params, reads = drawing_inputs(f"models.{model}", source)
        super().__init__(context, f"generate/{model}", params, (f"corpus/{REAL}",), reads)
        self.model, self.pipeline = model, source

    def preflight(self) -> None:
        """Check what configs alone show."""
        check_pipeline(self.pipeline)

    def check(self) -> None:
        """Draw one image."""
        prompts = self._prompts()[:TRIALS]
        pipeline = load_pipeline(self.pipeline)
        tried = (draw(pipeline, self.pipeline, [prompt])[0].left_out for prompt in prompts)
        if all(reasons := list(_until_empty(tried))):
            raise _none_left(self.pipeline, reasons)

    def run(self, folder: Path, progress: Progress) -> dict[str, Any]:
        """Write the images and the manifest; the summary says whether the images belong to captions."""
        summary = generate(self.pipeline, self._prompts(), folder, progress)
        return summary | {"prompted": bool(condition_of(self.pipeline))}

    def _prompts(self) -> list[Prompt]:
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


def generate(source: Pipeline, prompts: Sequence[Prompt], folder: Path, progress: Progress) -> dict[str, int]:
    """Draw one image per prompt as PNG files; those that are there already are kept.

    Batches are cut from the list of prompts, so an interrupted run draws the same batches as an undisturbed one.

    Parameters
    ----------
    source : the pipeline and its settings.
    prompts : what to draw.
    folder : the stage's folder; gets `images/` and the manifest.
    progress : called with the images drawn and all images.

    Raises
    ------
    BlindspotError
        If the pipeline cannot be loaded or called, its scheduler is not known or does not fit, or no image can be used.
    """
    paths = [image_path(folder, prompt.position) for prompt in prompts]
    marks = [folder / "left-out" / f"{path.stem}.txt" for path in paths]
    batches = [range(start, min(start + source.batch, len(prompts))) for start in range(0, len(prompts), source.batch)]
    left = [batch for batch in batches if not all(paths[at].exists() or marks[at].exists() for at in batch)]
    done = len(prompts) - sum(map(len, left))
    progress(done, len(prompts))
    drawer: BatchDrawer | None = None
    for batch in left:
        drawer = drawer or BatchDrawer(load_pipeline(source), source)
        for at, drawn in zip(batch, drawer([prompts[at] for at in batch]), strict=True):
            if drawn.left_out:
                _mark(marks[at], drawn.left_out)
            else:
                save_png(drawn.image, paths[at])
        done += len(batch)
        progress(done, len(prompts))
    images, skipped = [], []
    for prompt, path, mark in zip(prompts, paths, marks, strict=True):
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
    if drawer is not None:
        summary["truncated"] = count_truncated(drawer.pipeline, source, prompts)
        if drawer.batch < source.batch:
            summary["batch"] = drawer.batch
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
