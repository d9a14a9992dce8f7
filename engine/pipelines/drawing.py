"""Draw images with the pipelines of diffusers: from prompts, from classes, or as many as are asked for.

Images that the pipeline did not make are told apart: those with numbers that are not finite, which it turns into black
or white, and those that a safety filter blackened.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.hub import loading_options
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


def count_truncated(pipeline: Any, prompts: Sequence[Prompt]) -> int:
    """How many prompts are longer than every tokenizer of the pipeline reads."""
    parts = getattr(pipeline, "components", {}).values()
    readers = [part for part in parts if callable(part) and hasattr(part, "model_max_length")]
    return sum(
        all(len(read(prompt.text, verbose=False).input_ids) > read.model_max_length for read in readers)
        for prompt in prompts
        if readers
    )


def load_pipeline(source: PipelineSpec) -> Any:
    """The pipeline, ready to draw, without a safety checker: a blacked-out image is not what the model made.

    Raises
    ------
    BlindspotError
        If it cannot be loaded, or the scheduler is not one of diffusers' or does not fit.
    """
    _quieten()
    from diffusers import DiffusionPipeline

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
        pipeline.scheduler = _scheduler(pipeline, source.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(pick_device(source.device))


def _quieten() -> None:
    """Switch off bars and hints of transformers and diffusers, also those of importing diffusers' pipelines."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    from diffusers.utils import logging

    for library in (logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


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


def _scheduler(pipeline: Any, name: str) -> Any:
    """The scheduler of that name with the settings of the pipeline's own, if both are of one kind."""
    own, kind = pipeline.scheduler, scheduler_class(name)
    try:
        chosen = kind.from_config(own.config)
    except (TypeError, ValueError, AttributeError) as error:
        raise _cannot_draw(pipeline, f"{name} does not take the settings of {type(own).__name__}: {error}") from error
    if _matches_flow(chosen) != _matches_flow(own):
        one = "is" if _matches_flow(chosen) else "is not"
        raise BlindspotError(
            f"{name} {one} for flow matching, unlike {type(own).__name__}, with which {type(pipeline).__name__} was "
            "trained; leave models.*.scheduler out, or name one of its kind."
        )
    return chosen


def _matches_flow(scheduler: Any) -> bool:
    config = scheduler.config
    flow = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
    return type(scheduler).__name__.startswith("FlowMatch") or bool(flow)


Condition = Literal["prompt", "class_labels", ""]
"""The argument of a pipeline that says what to draw; none of one that draws what it likes."""


def condition_of(pipeline: Any) -> Condition:
    """How a pipeline, or the one that a recipe names, is told what to draw.

    Raises
    ------
    BlindspotError
        If it needs something that captions do not give.
    """
    kind = _class_named(pipeline) if isinstance(pipeline, PipelineSpec) else type(pipeline)
    parameters = inspect.signature(kind.__call__).parameters if kind else {}
    if "prompt" in parameters or not kind:
        return "prompt"
    needed = [name for name, one in list(parameters.items())[1:] if one.default is one.empty and one.kind not in _REST]
    if needed == ["class_labels"]:
        return "class_labels"
    if needed or "batch_size" not in parameters:
        raise _cannot_draw(kind, f"it needs {', '.join(needed) or 'other arguments'}, which captions are not")
    if any("image" in name for name in parameters):
        raise _cannot_draw(kind, "it needs an image")
    return ""


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _class_named(source: PipelineSpec) -> type | None:
    """The class that a pipeline's model_index.json names, if it is one of diffusers'."""
    _quieten()
    import diffusers

    try:
        config = diffusers.DiffusionPipeline.load_config(source.pipeline, revision=source.revision)
        return getattr(diffusers, config["_class_name"], None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # loading it says why


def _cannot_draw(pipeline: Any, reason: str) -> BlindspotError:
    name = (pipeline if isinstance(pipeline, type) else type(pipeline)).__name__
    return BlindspotError(
        f"A {name} cannot draw images from captions as models.* asks ({reason}); choose a text-to-image pipeline, or "
        "draw the images yourself and give their folder."
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
            raise _cannot_draw(pipeline, f"it draws classes 0 to {count - 1}{known}; {prompt.text[:60]!r} is none")
        found.append(number)
    return found


def draw(pipeline: Any, source: PipelineSpec, prompts: Sequence[Prompt]) -> list[Drawn]:
    """Draw a batch; each image has a generator of its own, so what it shows does not depend on its batch.

    Raises
    ------
    BlindspotError
        If the pipeline cannot be called like this, or fails.
    """
    seeds = [torch.Generator("cpu").manual_seed(image_seed(source.seed, prompt.position)) for prompt in prompts]
    condition = condition_of(pipeline)
    wanted: dict[str, Any] = {
        "num_inference_steps": source.steps,
        "guidance_scale": source.guidance,
        "generator": seeds if len(seeds) > 1 else seeds[0],
        "output_type": "np",
    }
    if condition == "prompt":
        wanted["prompt"] = [prompt.text for prompt in prompts]
    elif condition == "class_labels":
        wanted["class_labels"] = class_labels(pipeline, prompts)
    else:
        wanted["batch_size"] = len(prompts)
    accepted = inspect.signature(pipeline.__call__).parameters
    try:
        with _watched(pipeline, len(prompts)) as finite:
            output = pipeline(**{name: value for name, value in wanted.items() if name in accepted})
        found = list(output.images)
        pictures = [_picture(image) for image in found]
    except torch.OutOfMemoryError as error:
        raise BlindspotError(
            f"{source.pipeline} runs out of memory at {len(prompts)} images; lower its batch."
        ) from error
    except Exception as error:  # whatever a pipeline says of arguments, parts or a scheduler that do not fit
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(".")
        wants = "it takes an image beside them; " if IMAGES & {*accepted} else ""
        raise _cannot_draw(pipeline, wants + reason) from error
    if len(found) != len(prompts):
        raise _cannot_draw(pipeline, f"it gives {len(found)} images for {len(prompts)} prompts")
    intact = [ok and _is_finite(image) for ok, image in zip(finite(), found, strict=True)]
    flags = [list(flag) for name in FLAGS if (flag := getattr(output, name, None)) is not None]
    filtered = [any(one) for one in zip(*flags, strict=False)] if flags else [False] * len(found)
    reasons = [
        "" if ok and not bad else FILTERED if bad else NOT_FINITE for ok, bad in zip(intact, filtered, strict=True)
    ]
    return [Drawn(picture, reason) for picture, reason in zip(pictures, reasons, strict=True)]


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
