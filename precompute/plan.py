"""What a recipe will take on this machine, before anything is loaded: images, steps, disk, memory, hours.

Counts and bytes follow from the recipe and from headers and configs of weights. Hours are parameters times positions
times passes, over a product of matrices that is timed here: half or double is possible.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.atlas.schema import REAL
from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.pipelines.spec import PipelineSpec
from engine.vision.pretrained import image_settings
from engine.vision.spec import EncoderConfig
from precompute.recipe import DrawnReference, Folder, Pipeline, Recipe, World
from precompute.weights import Stored, stored_weights

UTILISATION = 0.4
"""Share of a plain product's speed that networks reach."""
UNET_POSITIONS = 12
"""Places of a latent image for each application of a UNet's average weight, measured on SD 1.5 and SDXL."""
DECODER_PIXELS = 10
"""The same of an autoencoder's decoder, in pixels."""
DECODER_SHARE = 0.6
"""Of an autoencoder's parameters, those of its decoder."""
PNG, THUMBNAIL, EMBEDDING = 1.6, 0.25, 4
"""Bytes: of a photograph's pixel as PNG, of a thumbnail's as WebP, of a number."""
CODE = 6
"""Bytes of a code: its concept and its value."""
SIDE = 512
"""Of an image, in pixels, where nothing says it."""
ITEM = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelPlan:
    """What drawing with one pipeline takes."""

    model: str
    images: int | None
    """To draw; None if nobody knows how many real images have captions."""
    drawn: int
    """Of these, those that an earlier run has drawn."""
    steps: int
    passes: int
    """Of the denoiser, an image: twice the steps with guidance."""
    height: int
    width: int
    parameters: int | None
    weights: int | None
    """Bytes of its weights."""
    here: bool
    memory: int | None
    """Bytes that it takes on its device."""
    hours: float | None
    problem: str
    """Why its weights cannot be had."""


@dataclass(frozen=True)
class Plan:
    """What a recipe takes."""

    recipe: str
    out: str
    device: str
    real_images: int | None
    images: int | None
    """Of all sources."""
    models: tuple[ModelPlan, ...]
    tokens: int | None
    """Of an image."""
    disk: Mapping[str, int | None]
    """Bytes by what is stored, while the atlas is built."""
    disk_total: int | None
    disk_free: int
    fetch: int
    """Bytes of weights that are fetched, as far as known."""
    memory: Mapping[str, int | None]
    """Bytes by stage, of which one runs at a time."""
    memory_total: int
    """Bytes that the device has."""
    hours: Mapping[str, float | None]
    """By stage."""
    hours_total: float | None


def plan(recipe: Recipe, out: Path) -> Plan:
    """Work out what a run of a recipe takes; `out` is the atlas's folder."""
    real, work = count_images(recipe, REAL), out.with_name(out.name + ".work")
    models = tuple(
        _model_plan(name, block, real, work)
        for name, block in ((REAL, recipe.real), *recipe.models.items())
        if isinstance(block, Pipeline)
    )
    counts = [real, *(one.images for one in models if one.model != REAL)]
    counts += [count_images(recipe, name) for name, block in recipe.models.items() if not isinstance(block, Pipeline)]
    images = None if None in counts else sum(count for count in counts if count is not None)
    encoder = stored_weights(recipe.encoder.id, recipe.encoder.revision)
    shape = token_shape(recipe.encoder, encoder)
    tokens, dim = shape if shape else (None, None)
    disk = _disk(recipe, models, images, shape)
    hours: dict[str, float | None] = {f"generate/{one.model}": one.hours for one in models}
    memory: dict[str, int | None] = {f"generate/{one.model}": one.memory for one in models}
    speed = flops_per_second(recipe.encoder.device, recipe.encoder.dtype)
    known = encoder.parts and shape and images is not None
    hours["encode"] = images * 2 * sum(encoder.parts.values()) * tokens / speed / 3600 if known else None  # type: ignore[operator, union-attr]
    parameters = sum(encoder.parts.values()) if encoder.parts else None
    memory["encode"] = None if parameters is None else 2 * parameters * ITEM[recipe.encoder.dtype]
    hours["dictionary"], memory["dictionary"] = _dictionary(recipe, real, tokens, dim)
    stored = [encoder, *(stored_weights(one.id) for one in (recipe.prior, *recipe.priors.values()) if one)]
    fetch = sum(one.size or 0 for one in stored if not one.here) + sum(
        one.weights or 0 for one in models if not one.here
    )
    known_disk = [size for size in disk.values() if size is not None]
    return Plan(
        recipe=recipe.name,
        out=str(out),
        device=device_name(recipe.encoder.device),
        real_images=real,
        images=images,
        models=models,
        tokens=tokens,
        disk=disk,
        disk_total=sum(known_disk) if len(known_disk) == len(disk) else None,
        disk_free=free_disk(out),
        fetch=fetch,
        memory=memory,
        memory_total=device_memory(recipe.encoder.device),
        hours=hours,
        hours_total=None if None in hours.values() else sum(one for one in hours.values() if one is not None),
    )


def as_document(made: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    return asdict(made)


def count_images(recipe: Recipe, source: str) -> int | None:
    """Images of a source that is there, from names alone; None if names do not tell."""
    from engine.files import visible_files
    from precompute.stages.corpus import SUFFIXES

    block: Any = recipe.real if source == REAL else recipe.models[source]
    most = recipe.limits.images
    if isinstance(block, World):
        found = block.count
    elif isinstance(block, DrawnReference):
        from precompute.stages.generate import listed_prompts

        return len(listed_prompts(block.captions, recipe.limits))
    elif isinstance(block, Folder):
        if not block.folder.is_dir():
            return most
        found = sum(Path(name).suffix.lower() in SUFFIXES for name in visible_files(block.folder))
    else:
        return getattr(block, "count", None) or most
    return found if most is None else min(found, most)


def _model_plan(name: str, source: PipelineSpec, images: int | None, work: Path) -> ModelPlan:
    stored = stored_weights(source.pipeline, source.revision, source.variant)
    height, width = image_size(source, stored)
    passes = source.steps * (2 if source.guidance > 1 or "true_cfg_scale" in source.call else 1)
    done = work / "generate" / name / "images"
    drawn = sum(1 for _ in done.glob("*.png")) if done.is_dir() else 0
    parameters = sum(stored.parts.values()) if stored.parts else None
    hours = memory = None
    if stored.parts and parameters:
        work_of_one = _flops(stored, height, width, passes)
        if images is not None:
            speed = flops_per_second(source.device, source.dtype)
            hours = max(0, images - drawn) * work_of_one / speed / 3600
        # A decoder's widest layers hold some 128 channels at full size, twice.
        memory = ITEM[source.dtype] * (parameters + 256 * source.batch * height * width)
    return ModelPlan(
        name, images, drawn, source.steps, passes, height, width, parameters, stored.size, stored.here, memory, hours,
        stored.problem,
    )  # fmt: skip


def image_size(source: PipelineSpec, stored: Stored) -> tuple[int, int]:
    """Height and width, in pixels, that a pipeline draws."""
    side = SIDE
    for part in ("unet", "transformer"):
        sample = stored.configs.get(part, {}).get("sample_size")
        if isinstance(sample, int):
            side = sample * _scale(stored)
    return source.height or side, source.width or side


def _scale(stored: Stored) -> int:
    """Pixels of an image's side for one of its latents."""
    vae = stored.configs.get("vae") or stored.configs.get("movq") or {}
    levels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    return 2 ** (len(levels) - 1) if levels else 8


def _flops(stored: Stored, height: int, width: int, passes: int) -> float:
    """Operations for one image."""
    parts = dict(stored.parts or {})
    latents = height * width / _scale(stored) ** 2
    total = 2 * DECODER_SHARE * (parts.get("vae") or parts.get("movq") or 0) * height * width / DECODER_PIXELS
    if "transformer" in parts:
        config = stored.configs.get("transformer", {})
        packed = any(name in str(config.get("_class_name")) for name in ("Flux", "Qwen"))
        positions = latents / (4 if packed or not config else (config.get("patch_size") or 1) ** 2)
        return total + 2 * passes * parts["transformer"] * positions
    return total + 2 * passes * (parts.get("unet") or sum(parts.values())) * latents / UNET_POSITIONS


def token_shape(encoder: EncoderConfig, stored: Stored) -> tuple[int, int] | None:
    """Tokens of an image and their width, from the config of a backbone with patches; None of others."""
    config = stored.configs.get("", {})
    if not config:
        return None
    config = config.get("vision_config", config)
    size = encoder.image_size or _prepared(encoder) or config.get("image_size")
    patch, dim = config.get("patch_size"), config.get("hidden_size")
    if encoder.hook or not all(isinstance(one, int) for one in (size, patch, dim)):
        return None
    return (size // patch) ** 2 + 1 + config.get("num_register_tokens", 0), dim


def _prepared(encoder: EncoderConfig) -> int | None:
    """The side that a checkpoint's image processor says, if it is to be had."""
    try:
        return image_settings(encoder.id, encoder.revision).image_size
    except (BlindspotError, OSError, ValueError):
        return None


def _disk(
    recipe: Recipe, models: tuple[ModelPlan, ...], images: int | None, shape: tuple[int, int] | None
) -> dict[str, int | None]:
    drawn = [one.images for one in models]
    pixels = sum((one.images or 0) * one.height * one.width for one in models)
    found: dict[str, int | None] = {"drawn images": None if None in drawn else int(pixels * PNG)}
    tokens = None if images is None or shape is None else images * shape[0]
    found["tokens"] = None if tokens is None or shape is None else tokens * shape[1] * ITEM[recipe.encoder.store]
    found["codes"] = None if tokens is None else tokens * recipe.dictionary.sparsity * CODE
    found["thumbnails"] = None if images is None else int(2 * images * recipe.thumbs.size**2 * THUMBNAIL)
    return found


def _dictionary(
    recipe: Recipe, real: int | None, tokens: int | None, dim: int | None
) -> tuple[float | None, int | None]:
    """Hours and bytes of training the dictionary."""
    spec = recipe.dictionary
    if spec.load is not None:
        return 0.0, None if dim is None else 2 * spec.concepts * dim * EMBEDDING
    if dim is None or tokens is None or real is None:
        return None, None
    candidates = (spec.candidates or spec.concepts) if spec.kind == "rasae" else 0
    used = min(spec.tokens, real * tokens)
    rows = used * spec.epochs if spec.steps is None else spec.steps * spec.batch
    work = 6 * rows * dim * spec.concepts * (1 + candidates / spec.batch)
    # Weights, gradients, AdamW's two moments, and as much again for what a step computes.
    memory = 8 * EMBEDDING * (2 * spec.concepts * dim + spec.concepts * candidates) + EMBEDDING * used * dim
    return work / flops_per_second(spec.device, "float32") / 3600, memory


@cache
def flops_per_second(device: str, dtype: str) -> float:
    """Operations a second that networks do on a device, from a product of matrices that is timed."""
    import torch

    place, kind = pick_device(device), getattr(torch, dtype)
    side = 8192 if place.type != "cpu" else 512 if dtype == "float32" else 256
    matrix = torch.randn(side, side, device=place).to(kind)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        total = (matrix @ matrix)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    assert total is not None
    return UTILISATION * 2 * side**3 / best


def device_name(device: str) -> str:
    """A device as a person calls it."""
    import torch

    place = pick_device(device)
    if place.type == "cuda":
        return f"{place} ({torch.cuda.get_device_name(place)})"
    return f"cpu ({torch.get_num_threads()} threads)" if place.type == "cpu" else str(place)


def device_memory(device: str) -> int:
    """Bytes of memory that a device has; for the CPU, what is available."""
    import psutil
    import torch

    place = pick_device(device)
    if place.type == "cuda":
        return int(torch.cuda.get_device_properties(place).total_memory)
    return int(psutil.virtual_memory().available)


def free_disk(out: Path) -> int:
    """Bytes that are free where a folder is or will be."""
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
