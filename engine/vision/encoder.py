"""One interface for every image backbone of `transformers`: images in [0, 1] in, prefix and patch tokens out."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.devices import pick_device
from engine.errors import BlindspotError
from engine.vision.preprocess import prepare
from engine.vision.pretrained import image_settings, load_backbone
from engine.vision.spec import EncoderConfig, EncoderSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_IMAGE_SIZE = 224
HIERA = "hiera"
FINAL_NORMS = ("layernorm", "norm", "layer_norm", "post_layernorm", "rms_norm")


class Tokens(NamedTuple):
    """The features of a batch of images, float32."""

    patches: Float[Tensor, "n height width dim"]
    """Patch tokens, rows from top to bottom."""
    prefix: Float[Tensor, "n prefix dim"]
    """Class token, then registers or a distillation token; none for feature maps and models without a class token."""

    def flat(self) -> Float[Tensor, "n tokens dim"]:
        """All tokens, prefix first, patches row by row."""
        return torch.cat([self.prefix, self.patches.flatten(1, 2)], dim=1)

    def embedding(self) -> Float[Tensor, "n dim"]:
        """One unit vector per image: its class token, or the mean patch of an encoder that has none."""
        whole = self.prefix[:, 0] if self.prefix.shape[1] else self.patches.mean(dim=(1, 2))
        return nn.functional.normalize(whole.float(), dim=-1)


class Encoder(nn.Module):
    """A frozen image backbone; `spec` says what it expects and returns. Load one with `Encoder.from_pretrained`.

    Layers. `layer=None` is the model's `last_hidden_state`. `layer=n` is `hidden_states[n]` (0: the embeddings, n:
    after block n, negative: from the end) passed through the model's final layer norm, so that `layer=-1` equals None
    for a transformer (but CLIP, whose output is before its norm) and every layer lives on the same scale. Convolutional
    backbones (ConvNeXt, DINOv3-ConvNeXt) number their stages the same way; a stage's feature map is returned as it is,
    without a prefix and without a norm, because only the last stage would fit the final one.

    Hooks. `hook` names any inner module, such as `model.stages.2.layers.20` of DINOv3-ConvNeXt; its output is read as
    it is, a feature map [B, d, h, w] or a token sequence [B, tokens, d], without a norm.
    """

    def __init__(self, backbone: PreTrainedModel, spec: EncoderSpec) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.spec = spec
        self.spec = _measured(self, spec)

    @classmethod
    def from_pretrained(
        cls, config: EncoderConfig | str, *, device: str | torch.device | None = None, **fields: Any
    ) -> Encoder:
        """Load a backbone with the image settings of its `preprocessor_config.json` (ImageNet's when there is none).

        The spec records the commit that was found on the hub.

        Parameters
        ----------
        config
            Which backbone (safetensors) and what is read of it; or its folder or hub id, and the config's other
            `fields`: `Encoder.from_pretrained("facebook/dinov2-base", layer=9)`.
        device
            Where the backbone computes, instead of the config's device.

        Raises
        ------
        BlindspotError
            When the checkpoint cannot be had, is not an image backbone, or does not fit the config.
        """
        if isinstance(config, str):
            config = EncoderConfig(config, **fields)
        if config.layer is not None and config.hook is not None:
            raise BlindspotError(
                f"The encoder {config.id} cannot be read at a layer and a hook at once; give one of them."
            )
        backbone = load_backbone(config.id, config.revision, getattr(torch, config.dtype))
        backbone.to(pick_device(config.device) if device is None else torch.device(device))  # type: ignore[arg-type]
        settings = image_settings(config.id, config.revision)
        draft = EncoderSpec(
            id=config.id,
            revision=getattr(backbone.config, "_commit_hash", None) or config.revision,
            layer=config.layer,
            image_size=config.image_size or settings.image_size or _trained_size(backbone) or DEFAULT_IMAGE_SIZE,
            patch=0,
            grid=(0, 0),
            prefix_tokens=0,
            dim=0,
            resize=config.resize or settings.resize,
            interpolation=settings.interpolation,
            mean=settings.mean,
            std=settings.std,
            crop_fraction=settings.crop_fraction,
            hook=config.hook,
            eight_bits=settings.eight_bits,
        )
        return cls(backbone, draft)

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        return self.backbone.device

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Tokens:
        """Compute the tokens of images in [0, 1] of any size; resizes and normalises inside, differentiable."""
        features = self._features(prepare(images.to(self.device).float(), self.spec)).float()
        if features.ndim == 4:
            return Tokens(features.permute(0, 2, 3, 1), features.new_empty(len(features), 0, features.shape[1]))
        prefix, patches = features.tensor_split([self.spec.prefix_tokens], dim=1)
        return Tokens(patches.unflatten(1, self.spec.grid), prefix)

    def _features(self, pixels: Tensor) -> Tensor:
        """Sequence [B, tokens, d] or feature map [B, d, h, w] of normalised pixels [B, 3, s, s]."""
        kind = self.backbone.config.model_type
        options: dict[str, Any] = {"output_hidden_states": self.spec.layer is not None or kind == HIERA}
        if "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters:
            options["interpolate_pos_encoding"] = self.spec.image_size != _trained_size(self.backbone)
        pixels = pixels.to(self.backbone.dtype)
        if kind == "vit_mae":
            options["noise"] = _in_order(pixels, self.backbone.config.patch_size)
        elif kind == "siglip2_vision_model":
            pixels, more = _patches(pixels, self.backbone.config.patch_size)
            options |= more
        if self.spec.hook is not None:
            return self._hooked(self.spec.hook, pixels, options)
        output = self.backbone(pixels, **options)
        if self.spec.layer is None and kind != HIERA:
            return output.last_hidden_state
        layer, states = -1 if self.spec.layer is None else self.spec.layer, output.hidden_states
        if kind == HIERA:  # whose tokens lie in the order of its mask units
            states = tuple(state.permute(0, 3, 1, 2) for state in output.reshaped_hidden_states)
        if not -len(states) <= layer < len(states):
            raise BlindspotError(
                f"The encoder {self.spec.id} has layers 0 to {len(states) - 1}, so there is no layer "
                f"{layer}; choose one of them."
            )
        state = states[layer]
        norms = (getattr(self.backbone, name, None) for name in FINAL_NORMS)
        final_norm = next((norm for norm in norms if norm is not None), nn.Identity())
        width = getattr(final_norm, "normalized_shape", state.shape[-1:])
        # Inner stages of hierarchical models, such as Swin, are narrower than the final norm.
        return final_norm(state) if state.ndim == 3 and tuple(width) == tuple(state.shape[-1:]) else state

    def _hooked(self, hook: str, pixels: Tensor, options: dict[str, Any]) -> Tensor:
        """The output of the hooked module while the backbone looks at pixels [B, 3, s, s]."""
        module = dict(self.backbone.named_modules()).get(hook)
        if not hook or module is None:
            raise BlindspotError(
                f"The encoder {self.spec.id} has no module {hook!r}; name one of its blocks, for example "
                f"{_last_block(self.backbone)}."
            )
        found: list[Tensor] = []
        here = get_ident()

        def keep(_: nn.Module, __: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
            if get_ident() == here:  # another thread may be looking at other images
                found.append(output if isinstance(output, Tensor) else output[0])

        handle = module.register_forward_hook(keep)
        try:
            self.backbone(pixels, **options)
        finally:
            handle.remove()
        return found[-1]


def _last_block(backbone: PreTrainedModel) -> str:
    """The name of the last module of the backbone's longest list of blocks."""
    lists = [(name, len(module)) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    name, count = max(lists, key=lambda found: found[1], default=("encoder.layer", 1))
    return f"{name}.{count - 1}"


def _in_order(pixels: Tensor, patch: int) -> Tensor:
    """The "noise" by which ViT-MAE keeps the patches of pixels [B, 3, s, s] in their order."""
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    return torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), count)


def _patches(pixels: Tensor, patch: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels [B, 3, s, s] as SigLIP2 with variable resolution wants them: flat patches, their mask and the grid."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cut = pixels[..., : rows * patch, : columns * patch].reshape(batch, channels, rows, patch, columns, patch)
    flat = cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch * patch * channels)
    mask = torch.ones(batch, rows * columns, dtype=torch.int32, device=pixels.device)
    grid = torch.tensor([[rows, columns]] * batch, device=pixels.device)
    return flat, {"pixel_attention_mask": mask, "spatial_shapes": grid}


def _trained_size(backbone: PreTrainedModel) -> int | None:
    if backbone.config.model_type == "siglip2_vision_model":
        return math.isqrt(backbone.config.num_patches) * backbone.config.patch_size
    size = getattr(backbone.config, "image_size", None)
    return size[0] if isinstance(size, (list, tuple)) else size


def _measured(encoder: Encoder, draft: EncoderSpec) -> EncoderSpec:
    """Complete a draft with the grid, prefix and width that one blank image shows."""
    blank = torch.zeros(1, 3, draft.image_size, draft.image_size, device=encoder.device)
    try:
        with torch.inference_mode():
            features = encoder._features(blank)
    except BlindspotError:
        raise
    except Exception as error:  # whatever a model of another kind says of an image
        raise BlindspotError(
            f"The model {draft.id} does not encode images of {draft.image_size} pixels as an image backbone would; "
            "choose a vision model such as DINOv2, or another image size."
        ) from error
    if features.ndim == 4:
        _, dim, height, width = features.shape
        return replace(draft, patch=draft.image_size // height, grid=(height, width), prefix_tokens=0, dim=dim)
    tokens, dim = features.shape[1:]
    config = encoder.backbone.config
    registers = 1 + getattr(config, "num_register_tokens", 0)
    patch = getattr(config, "patch_size", None)
    patch = patch[0] if isinstance(patch, list | tuple) and len({*patch}) == 1 else patch
    if isinstance(patch, int):
        if draft.image_size % patch:
            nearest = max(1, round(draft.image_size / patch)) * patch
            raise BlindspotError(
                f"The image size {draft.image_size} is not a multiple of the patch size {patch} of {draft.id}; "
                f"use {nearest}."
            )
        side = draft.image_size // patch
        if tokens < side * side and (coarse := math.isqrt(tokens)) and side % coarse == 0:
            side = coarse  # the last stage of a hierarchical model, such as Swin
        prefix = tokens - side * side
    else:
        side, prefix = math.isqrt(max(0, tokens - registers)), registers
    # No class token, one, one with registers, or one with a distillation token.
    if side == 0 or prefix not in (0, 1, registers, 2) or prefix + side * side != tokens:
        raise BlindspotError(
            f"The model {draft.id} gives {tokens} tokens, which is not a square grid of patches after a class token "
            "and its registers or none; choose a backbone with that layout, such as DINOv2, DINOv3 or ViT."
        )
    return replace(draft, patch=draft.image_size // side, grid=(side, side), prefix_tokens=prefix, dim=dim)
