"""Open a `transformers` backbone and the image settings beside it, from a folder or the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.errors import BlindspotError
from engine.hub import find_model, loading_options
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Resize

if TYPE_CHECKING:  # the import takes seconds: only what loads a checkpoint does it
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

PIL_BILINEAR = 2
CONVNEXT_SQUARE_FROM = 384
"""Size from which ConvNeXt's processor squeezes images instead of cropping them."""
RESIZED_AS_FLOATS = "DINOv3"
"""Start of the names of processors that scale images to [0, 1] before they resize them."""
MISFIT = "The weights of the encoder {} do not fit its config.json; get both from the same checkpoint."
NEVER_USED_KEYS = ("pooler", "mask_token")
"""Parts of a backbone that a checkpoint may lack."""


def load_backbone(source: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights (safetensors only) of a folder or hub id; the hub's local cache is tried before the network.

    Of a model of images and text, such as CLIP, its vision tower is returned.

    Raises
    ------
    BlindspotError
        When there is no such checkpoint, when it is not a model of `transformers`, or when weights are missing.
    """
    from transformers import PreTrainedModel

    model, missing = _load(source, revision, dtype)
    if hasattr(model.config, "vision_config"):
        tower, missing = getattr(model, "vision_model", None), [key for key in missing if "vision_model." in key]
        if not isinstance(tower, PreTrainedModel):
            raise BlindspotError(
                f"The encoder {source} ({model.config.model_type}) has no vision tower that is known here; choose "
                "CLIP, SigLIP or a plain vision model."
            )
        tower.config._commit_hash = getattr(model.config, "_commit_hash", None)
        model = tower
    _refuse_missing(missing, source)
    return model


def load_text_and_images(
    source: str, revision: str | None, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model that embeds texts and images in one space, such as CLIP or SigLIP, and its tokenizer.

    Parameters and errors as for `load_backbone`; also when the model or its folder has no such thing.
    """
    from transformers import AutoTokenizer

    model, missing = _load(source, revision, dtype)
    if not all(hasattr(model, name) for name in ("get_text_features", "get_image_features")):
        raise BlindspotError(
            f"The encoder {source} ({model.config.model_type}) does not embed texts and images in one space: choose "
            "CLIP, SigLIP or their like."
        )
    _refuse_missing(missing, source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(find_model(source, source)), revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:  # whatever a folder without a tokenizer makes transformers say
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
        raise BlindspotError(f"The tokenizer of {source} cannot be loaded: {first_line}") from error
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):  # what transformers makes up without its files
        raise BlindspotError(f"The tokenizer of {source} knows no words: get its files from the same checkpoint.")
    return model, tokenizer


def _refuse_missing(missing: list[str], source: str) -> None:
    """Raise `BlindspotError` for weights that a checkpoint lacks."""
    if any(not any(name in key for name in NEVER_USED_KEYS) for key in missing):
        raise BlindspotError(MISFIT.format(source))


def _load(source: str, revision: str | None, dtype: torch.dtype) -> tuple[PreTrainedModel, list[str]]:
    """A checkpoint's whole model and the names of weights that it lacks; errors as in `load_backbone`."""
    from transformers import AutoModel

    found = find_model(source, f"There is no encoder folder {source}; check the path.")
    if isinstance(found, Path) and not (found / "config.json").is_file():
        raise BlindspotError(f"The encoder folder {source} has no config.json; point to a saved transformers model.")
    options: dict[str, Any] = {"revision": revision or "main", **loading_options(found, revision)}
    for cached in (True, False):
        options["local_files_only"] = cached
        try:
            config = _usable_config(str(found), options)
            model, loading = AutoModel.from_pretrained(
                str(found), config=config, output_loading_info=True, use_safetensors=True, dtype=dtype, **options
            )
            break
        except BlindspotError:
            raise
        except Exception as error:  # whatever a config of another kind makes transformers say
            if type(error) is RuntimeError:
                raise BlindspotError(MISFIT.format(source)) from error
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."
            if isinstance(found, Path):
                raise BlindspotError(f"The encoder in {source} cannot be loaded: {first_line}") from error
            if not cached:
                raise BlindspotError(
                    f"The encoder {source} is neither a folder here nor a model that the Hugging Face hub gives us; "
                    f"check its name and the network ({first_line})"
                ) from error
    return model, list(loading["missing_keys"])


def _usable_config(source: str, options: dict[str, Any]) -> PreTrainedConfig:
    """The model's config.

    Raises
    ------
    BlindspotError
        If it cannot be an encoder here.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    described, _ = PreTrainedConfig.get_config_dict(source, **options)
    kind = described.get("model_type")
    if "architecture" in described or (isinstance(kind, str) and kind.startswith("timm")):
        raise BlindspotError(
            f"The encoder {source} is a model of timm, which is not read here; use the same one for transformers, for "
            "example facebook/dinov2-base."
        )
    if "auto_map" in described and kind not in CONFIG_MAPPING:
        raise BlindspotError(
            f"The encoder {source} comes with code of its own, which is never run; choose a model that transformers "
            "itself has."
        )
    config = AutoConfig.from_pretrained(source, **options)
    if kind == "vit_mae":
        config.mask_ratio = 0.0  # the encoder sees all of an image, as `Encoder` asks for its patches in their order
    elif kind != "hiera" and hasattr(getattr(config, "vision_config", config), "mask_ratio"):
        raise BlindspotError(
            f"The encoder {source} ({config.model_type}) hides random parts of every image; choose one that sees all "
            "of it, such as DINOv2."
        )
    return config


@dataclass(frozen=True)
class ImageSettings:
    """How a checkpoint's authors prepared images; the defaults are ImageNet's and a square resize."""

    image_size: int | None = None
    """Side in pixels of what the backbone saw; None when the checkpoint does not say."""
    resize: Resize = "square"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop_fraction: float = 0.875
    eight_bits: bool = True


def image_settings(source: str, revision: str | None) -> ImageSettings:
    """Read the preprocessor's or processor's config of a folder or hub id; without one, ImageNet's defaults."""
    folder = Path(source).expanduser()
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not folder.is_dir():
            from transformers.utils import cached_file

            found = cached_file(
                source,
                name,
                revision=revision or "main",
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            path = Path(found or path)
        try:
            if path.is_file():
                config = json.loads(path.read_text(encoding="utf-8"))
                return parse_settings(config.get("image_processor", config))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BlindspotError(f"The image settings in {path} cannot be read; repair or remove that file.") from error
    return ImageSettings()


def parse_settings(config: dict[str, Any]) -> ImageSettings:
    """Translate the dialects of `preprocessor_config.json` (ViT, BiT, ConvNeXt) into one."""
    size, crop = _side(config.get("size")), _side(config.get("crop_size"))
    interpolation: Interpolation = "bilinear" if config.get("resample", 3) == PIL_BILINEAR else "bicubic"
    normalise = config.get("do_normalize", True)
    mean = tuple(config.get("image_mean") or IMAGENET_MEAN) if normalise else (0.0, 0.0, 0.0)
    std = tuple(config.get("image_std") or IMAGENET_STD) if normalise else (1.0, 1.0, 1.0)
    eight_bits = not str(config.get("image_processor_type", "")).startswith(RESIZED_AS_FLOATS)
    if config.get("do_center_crop") and crop:
        fraction = min(1.0, crop / size) if size and config.get("do_resize", True) else 1.0
        how: Resize = "square-crop" if isinstance(config.get("size"), dict) and "height" in config["size"] else "crop"
        return ImageSettings(crop, how, interpolation, mean, std, fraction, eight_bits)
    if config.get("crop_pct") and size and size < CONVNEXT_SQUARE_FROM:
        fraction = size / int(size / float(config["crop_pct"]))
        return ImageSettings(size, "crop", interpolation, mean, std, fraction, eight_bits)
    return ImageSettings(size, "square", interpolation, mean, std, eight_bits=eight_bits)


def _side(size: int | dict[str, int] | None) -> int | None:
    if isinstance(size, dict):
        return size.get("shortest_edge") or size.get("height")
    return size
