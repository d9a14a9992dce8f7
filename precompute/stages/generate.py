"""Images that a diffusers text-to-image pipeline draws from the captions of the real ones."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from engine.atlas.schema import REAL
from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.hub import loading_options
from precompute.recipe import Pipeline
from precompute.runner import Context, Progress, Stage, fingerprint_fields, model_input
from precompute.stages.corpus import ImageRecord, image_path, images_of, save_png, stored_image, write_manifest


class Prompt(NamedTuple):
    """One image to draw."""

    position: int
    """Of the real image whose caption it is; names the file and, with the recipe's seed, seeds the image."""
    text: str


class GenerateStage(Stage):
    """`generate/M`: one image per caption of the real images, drawn by a pipeline."""

    def __init__(self, context: Context, model: str) -> None:
        source = context.source(model)
        assert isinstance(source, Pipeline)
        params, reads = model_input(f"models.{model}.pipeline", source.pipeline, fingerprint_fields(source, "pipeline"))
        super().__init__(context, f"generate/{model}", params, (f"corpus/{REAL}",), reads)
        self.model, self.pipeline = model, source

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the images and the manifest."""
        return generate(self.pipeline, prompts_of(images_of(self.context, REAL), self.model), folder, progress)


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
        If the pipeline cannot be loaded or its scheduler is not known.
    """
    paths = [image_path(folder, prompt.position) for prompt in prompts]
    batches = [range(start, min(start + source.batch, len(prompts))) for start in range(0, len(prompts), source.batch)]
    left = [batch for batch in batches if not all(paths[at].exists() for at in batch)]
    done = len(prompts) - sum(map(len, left))
    progress(done, len(prompts))
    pipeline = load_pipeline(source) if left else None
    for batch in left:
        for at, image in zip(batch, draw(pipeline, source, [prompts[at] for at in batch]), strict=True):
            save_png(image, paths[at])
        done += len(batch)
        progress(done, len(prompts))
    images = []
    for prompt, path in zip(prompts, paths, strict=True):
        with Image.open(path, formats=["PNG"]) as image:
            images.append(stored_image(path, folder, prompt.text, image.size))
    return write_manifest(folder, images, [])


def load_pipeline(source: Pipeline) -> Any:
    """The pipeline, ready to draw, without a safety checker: a blacked-out image is not what the model made.

    Raises
    ------
    BlindspotError
        If it cannot be loaded, or the scheduler is not one of diffusers'.
    """
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    # Said even for float32: a text encoder stored in half precision would else stay so beside a float32 UNet.
    precision = getattr(torch, source.dtype)
    try:
        loading = loading_options(source.pipeline, source.revision)
        pipeline = DiffusionPipeline.from_pretrained(
            source.pipeline, revision=source.revision, torch_dtype=precision, **loading
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BlindspotError(
            f"The pipeline {source.pipeline} cannot be loaded ({reason}); give a folder in diffusers' format or a "
            "Hugging Face id."
        ) from error
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    if source.scheduler:
        pipeline.scheduler = scheduler_class(source.scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(pick_device(source.device))


def scheduler_class(name: str) -> Any:
    """A scheduler class of diffusers by name.

    Raises
    ------
    BlindspotError
        If there is none of that name.
    """
    from diffusers import schedulers

    names = [known for known in dir(schedulers) if known.endswith("Scheduler")]
    if name in names:
        return getattr(schedulers, name)
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "; try DDIMScheduler or DPMSolverMultistepScheduler."
    raise BlindspotError(f"diffusers has no scheduler called {name}{hint}")


def draw(pipeline: Any, source: Pipeline, prompts: Sequence[Prompt]) -> list[Image.Image]:
    """Draw a batch; each image has a generator of its own, so what it shows does not depend on its batch."""
    return pipeline(
        prompt=[prompt.text for prompt in prompts],
        num_inference_steps=source.steps,
        guidance_scale=source.guidance,
        generator=[torch.Generator("cpu").manual_seed(image_seed(source.seed, prompt.position)) for prompt in prompts],
    ).images


def image_seed(seed: int, position: int) -> int:
    """The seed of one image, well mixed: neighbouring seeds and positions have nothing in common."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> np.uint64(1))
