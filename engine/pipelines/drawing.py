"""Draw images with the pipelines of diffusers: from prompts, from classes, or as many as are asked for.

Images that the pipeline did not make are told apart: those with numbers that are not finite, which it turns into black
or white, and those that a safety filter blackened.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.errors import BlindspotError
from engine.pipelines.loading import cannot_draw, condition_of
from engine.pipelines.spec import PipelineSpec

NOT_FINITE, FILTERED = "not finite", "safety filter"
"""Why an image is left out."""
IMAGES = {"image", "images", "mask_image", "control_image", "input_image", "video"}
"""Arguments of pipelines that do not draw from text alone."""
FLAGS = ("nsfw_content_detected", "nsfw_detected", "watermark_detected")
"""Where a pipeline says which images its safety filter replaced."""


class Prompt(NamedTuple):
    """One image to draw."""

    position: int
    """With the spec's seed it seeds the image; of a recipe's image it is the place of the real one with its caption."""
    text: str


class Drawn(NamedTuple):
    """What became of one prompt."""

    image: Image.Image
    left_out: str
    """Why it is not what the model made, in a few words; empty if it is."""


class OutOfMemory(BlindspotError):
    """The device has no memory for a batch."""


def count_truncated(pipeline: Any, source: PipelineSpec, prompts: Sequence[Prompt]) -> int:
    """How many prompts are longer than every tokenizer of the pipeline reads."""
    parts = getattr(pipeline, "components", {}).values()
    readers = [part for part in parts if callable(part) and hasattr(part, "model_max_length")]
    longest = inspect.signature(pipeline.__call__).parameters.get("max_sequence_length")
    most = source.call.get("max_sequence_length") or (longest.default if longest else None) or float("inf")
    return sum(
        all(len(read(prompt.text, verbose=False).input_ids) > min(read.model_max_length, most) for read in readers)
        for prompt in prompts
        if readers
    )


def class_labels(pipeline: Any, prompts: Sequence[Prompt]) -> list[int]:
    """The classes that captions name, by number or by one of the pipeline's own names.

    Raises
    ------
    BlindspotError
        If a caption names none.
    """
    config = getattr(getattr(pipeline, "transformer", None), "config", {})
    count = config.get("num_embeds_ada_norm") or 1000
    names = {name.strip().lower(): number for name, number in (getattr(pipeline, "labels", None) or {}).items()}
    found = []
    for prompt in prompts:
        text = prompt.text.strip().lower()
        number = names.get(text, int(text) if text.isdecimal() else -1)
        if not 0 <= number < count:
            known = f", or their names, such as {next(iter(names))!r}" if names else ""
            raise cannot_draw(pipeline, f"it draws classes 0 to {count - 1}{known}; {prompt.text[:60]!r} is none")
        found.append(number)
    return found


class BatchDrawer:
    """Draws prompts in batches that are halved, from then on, whenever memory runs out.

    Parameters
    ----------
    pipeline
        What `load_pipeline` gives.
    source
        Its settings.
    """

    def __init__(self, pipeline: Any, source: PipelineSpec) -> None:
        self.pipeline, self.source, self.batch = pipeline, source, source.batch

    def __call__(self, prompts: Sequence[Prompt]) -> Iterator[Drawn]:
        """Draw the prompts, in order; an image is given once its batch is done. Errors as for `draw`."""
        from accelerate.utils.memory import clear_device_cache

        start = 0
        while start < len(prompts):
            part, made = prompts[start : start + self.batch], None
            try:
                made = draw(self.pipeline, self.source, part)
            except OutOfMemory:
                if len(part) == 1:
                    raise
            if made is None:  # here the failed batch's tensors, which the exception held, can be freed
                self.batch = len(part) // 2
                clear_device_cache(garbage_collection=True)
                continue
            yield from made
            start += len(part)


def draw(pipeline: Any, source: PipelineSpec, prompts: Sequence[Prompt]) -> list[Drawn]:
    """Draw a batch; each image has a generator of its own, so what it shows does not depend on its batch.

    Raises
    ------
    OutOfMemory
        If there is no memory for so many images.
    BlindspotError
        If the pipeline cannot be called like this, or fails.
    """
    from accelerate.utils.memory import should_reduce_batch_size

    accepted = inspect.signature(pipeline.__call__).parameters
    wanted = {name: value for name, value in _arguments(pipeline, source, prompts).items() if name in accepted}
    try:
        with _watched(pipeline, len(prompts)) as finite:
            output = pipeline(**wanted, **source.call)
        found = list(output.images)
        pictures = [_picture(image) for image in found]
    except Exception as error:  # whatever a pipeline says of arguments, parts or a scheduler that do not fit
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error):
            less = ", or set its dtype to float16" if source.dtype == "float32" else ""
            images = f"{len(prompts)} images at once" if len(prompts) > 1 else "one image"
            raise OutOfMemory(
                f"{source.pipeline} runs out of memory at {images}: lower its height and width{less}."
            ) from error
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".")
        wants = "it takes an image beside them; " if IMAGES & {*accepted} else ""
        raise cannot_draw(pipeline, wants + reason) from error
    if len(found) != len(prompts):
        raise cannot_draw(pipeline, f"it gives {len(found)} images for {len(prompts)} prompts")
    intact = [ok and _is_finite(image) for ok, image in zip(finite(), found, strict=True)]
    flags = [list(flag) for name in FLAGS if (flag := getattr(output, name, None)) is not None]
    filtered = [any(one) for one in zip(*flags, strict=False)] if flags else [False] * len(found)
    reasons = [
        "" if ok and not bad else FILTERED if bad else NOT_FINITE for ok, bad in zip(intact, filtered, strict=True)
    ]
    return [Drawn(picture, reason) for picture, reason in zip(pictures, reasons, strict=True)]


def _arguments(pipeline: Any, source: PipelineSpec, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What a spec says of a call; a pipeline need not take all of it."""
    seeds = [torch.Generator("cpu").manual_seed(image_seed(source.seed, prompt.position)) for prompt in prompts]
    arguments: dict[str, Any] = {
        "num_inference_steps": source.steps,
        "guidance_scale": source.guidance,
        "generator": seeds if len(seeds) > 1 else seeds[0],
        "output_type": "np",
    }
    for name in ("height", "width"):
        if (side := getattr(source, name)) is not None:
            arguments[name] = side
    if source.negative_prompt is not None:
        arguments["negative_prompt"] = [source.negative_prompt] * len(prompts)
    condition = condition_of(pipeline)
    if condition == "prompt":
        return arguments | {"prompt": [prompt.text for prompt in prompts]}
    if condition == "class_labels":
        return arguments | {"class_labels": class_labels(pipeline, prompts)}
    return arguments | {"batch_size": len(prompts)}


@contextmanager
def _watched(pipeline: Any, count: int) -> Iterator[Callable[[], list[bool]]]:
    """Inside, watch what the denoiser and the decoder give; returns whether it was finite, for each of `count` images.

    What a pipeline makes of it does not tell: it clips infinities to white and black.
    """
    seen: list[Tensor] = []

    def watch(_: nn.Module, __: Any, output: Any) -> None:
        found = output if isinstance(output, Tensor) else output[0] if len(output) else None
        if isinstance(found, Tensor) and found.is_floating_point():
            seen.append(found.detach().isfinite().flatten(1).all(dim=1))

    def finite() -> list[bool]:
        whole = torch.cat([flags.cpu() for flags in seen]) if seen else torch.ones(count, dtype=torch.bool)
        # With classifier-free guidance a network sees a batch twice, and a decoder may see its images one by one.
        return (whole.view(-1, count).all(dim=0) if len(whole) % count == 0 else whole.all().expand(count)).tolist()

    parts = getattr(pipeline, "components", {}).items()
    networks = [part for name, part in parts if isinstance(part, nn.Module) and "encoder" not in name]
    decoders = [getattr(part, "decoder", None) for part in networks]
    networks += [decoder for decoder in decoders if isinstance(decoder, nn.Module)]
    handles = [network.register_forward_hook(watch) for network in networks]
    try:
        yield finite
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(image: Any) -> bool:
    return isinstance(image, Image.Image) or bool(np.isfinite(image).all())


def _picture(image: Any) -> Image.Image:
    """One image of a pipeline, numbers in [0, 1], as diffusers rounds them."""
    if isinstance(image, Image.Image):
        return image
    with np.errstate(invalid="ignore"):
        pixels = (np.asarray(image) * 255).round().astype("uint8")
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def image_seed(seed: int, position: int) -> int:
    """The seed of one image, well mixed: neighbouring seeds and positions have nothing in common."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> np.uint64(1))
