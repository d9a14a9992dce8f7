"""One face for every image backbone of `transformers`: images in [0, 1] in, prefix and patch tokens out."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from threading import get_ident
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from engine.errors import BlindspotError
from engine.vision.preprocess import prepare
from engine.vision.pretrained import image_settings, load_backbone
from engine.vision.spec import EncoderSpec

__all__ = ["Encoder", "EncoderSpec", "Tokens"]

DEFAULT_IMAGE_SIZE = 224
FINAL_NORMS = ("layernorm", "norm", "layer_norm", "post_layernorm")


class Tokens(NamedTuple):
    """The features of a batch of images, float32."""

    patches: Tensor
    """Patch tokens [B, h, w, d], rows from top to bottom."""

    prefix: Tensor
    """Class token, then registers [B, p, d]; p is 0 for plain feature maps."""

    def flat(self) -> Tensor:
        """All tokens [B, p + h * w, d], prefix first, patches row by row."""
        return torch.cat([self.prefix, self.patches.flatten(1, 2)], dim=1)

    def embedding(self) -> Tensor:
        """One unit vector per image [B, d]: its class token, or the mean patch of an encoder that has none."""
        whole = self.prefix[:, 0] if self.prefix.shape[1] else self.patches.mean(dim=(1, 2))
        return nn.functional.normalize(whole.float(), dim=-1)


class Encoder(nn.Module):
    """A frozen image backbone; `spec` says what it expects and returns.

    Layers. `layer=None` is the model's `last_hidden_state`. `layer=n` is `hidden_states[n]` (0: the embeddings, n:
    after block n, negative: from the end) passed through the model's final layer norm, so that `layer=-1` equals None
    for a transformer and every layer lives on the same scale. Convolutional backbones (ConvNeXt, DINOv3-ConvNeXt)
    number their stages the same way; a stage's feature map is returned as it is, without a prefix and without a norm,
    because only the last stage would fit the final one.

    Hooks. `hook` names any inner module, such as `model.stages.2.layers.20` of DINOv3-ConvNeXt; its output is read as
    it is, a feature map [B, d, h, w] or a token sequence [B, tokens, d], without a norm.

    Use `Encoder.from_pretrained`.
    """

    def __init__(self, backbone: PreTrainedModel, spec: EncoderSpec) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.spec = _measured(self, spec)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str,
        *,
        revision: str | None = None,
        layer: int | None = None,
        hook: str | None = None,
        image_size: int | None = None,
        resize: Literal["square", "crop"] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Encoder:
        """Load a backbone with the image settings of its `preprocessor_config.json` (ImageNet's when there is none).

        Parameters
        ----------
        id_or_path
            Local folder or hub id of any `transformers` image backbone (safetensors).
        revision
            Hub commit, tag or branch; the spec records the commit that was found.
        layer, hook
            Which features, see the class; at most one of the two.
        image_size
            Side in pixels that the backbone sees; position embeddings are interpolated when it differs from training.
        resize
            Overrides the checkpoint's way of making images square.
        device, dtype
            Where and in which precision the backbone computes; tokens are float32 in any case.

        Raises
        ------
        BlindspotError
            When the checkpoint cannot be had, is not an image backbone, or does not fit the other arguments.
        """
        source = str(id_or_path)
        if layer is not None and hook is not None:
            raise BlindspotError(
                f"The encoder {source} cannot be read at a layer and a hook at once; give one of them."
            )
        backbone = load_backbone(source, revision, dtype).to(device)
        settings = image_settings(source, revision)
        size = image_size or settings.image_size or _trained_size(backbone) or DEFAULT_IMAGE_SIZE
        draft = EncoderSpec(
            id=source,
            revision=getattr(backbone.config, "_commit_hash", None) or revision,
            layer=layer,
            image_size=size,
            patch=0,
            grid=(0, 0),
            prefix_tokens=0,
            dim=0,
            resize=resize or settings.resize,
            interpolation=settings.interpolation,
            mean=settings.mean,
            std=settings.std,
            crop_fraction=settings.crop_fraction,
            hook=hook,
        )
        return cls(backbone, draft)

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        return self.backbone.device

    def forward(self, images: Tensor) -> Tokens:
        """Tokens of images; resizes and normalises inside, differentiable in the images.

        Parameters
        ----------
        images
            Float [B, 3, H, W] in [0, 1], any size.

        Returns
        -------
        Tokens
            Patches [B, h, w, d] and prefix [B, p, d], float32.
        """
        features = self._features(prepare(images.to(self.device).float(), self.spec)).float()
        if features.ndim == 4:
            return Tokens(features.permute(0, 2, 3, 1), features.new_empty(len(features), 0, features.shape[1]))
        prefix, patches = features.tensor_split([self.spec.prefix_tokens], dim=1)
        return Tokens(patches.unflatten(1, self.spec.grid), prefix)

    def _features(self, pixels: Tensor) -> Tensor:
        """Sequence [B, tokens, d] or feature map [B, d, h, w] of normalised pixels [B, 3, s, s]."""
        options = {"output_hidden_states": self.spec.layer is not None}
        if "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters:
            options["interpolate_pos_encoding"] = self.spec.image_size != _trained_size(self.backbone)
        if self.spec.hook is not None:
            return self._hooked(pixels.to(self.backbone.dtype), options)
        output = self.backbone(pixels.to(self.backbone.dtype), **options)
        if self.spec.layer is None:
            return output.last_hidden_state
        states = output.hidden_states
        if not -len(states) <= self.spec.layer < len(states):
            raise BlindspotError(
                f"The encoder {self.spec.id} has layers 0 to {len(states) - 1}, so there is no layer "
                f"{self.spec.layer}; choose one of them."
            )
        state = states[self.spec.layer]
        return self._final_norm()(state) if state.ndim == 3 else state

    def _hooked(self, pixels: Tensor, options: dict[str, bool]) -> Tensor:
        """The output of the hooked module while the backbone looks at pixels [B, 3, s, s]."""
        module = dict(self.backbone.named_modules()).get(self.spec.hook)
        if not self.spec.hook or module is None:
            raise BlindspotError(
                f"The encoder {self.spec.id} has no module {self.spec.hook!r}; name one of its blocks, for example "
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

    def _final_norm(self) -> nn.Module:
        norms = (getattr(self.backbone, name, None) for name in FINAL_NORMS)
        return next((norm for norm in norms if norm is not None), nn.Identity())


def _last_block(backbone: PreTrainedModel) -> str:
    """The name of the last module of the backbone's longest list of blocks."""
    lists = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    name, blocks = max(lists, key=lambda found: len(found[1]), default=("encoder.layer", [None]))
    return f"{name}.{len(blocks) - 1}"


def _trained_size(backbone: PreTrainedModel) -> int | None:
    size = getattr(backbone.config, "image_size", None)
    return size[0] if isinstance(size, (list, tuple)) else size


def _measured(encoder: Encoder, draft: EncoderSpec) -> EncoderSpec:
    """Complete a draft with the grid, prefix and width that one blank image shows."""
    encoder.spec = draft
    blank = torch.zeros(1, 3, draft.image_size, draft.image_size, device=encoder.device)
    try:
        with torch.inference_mode():
            features = encoder._features(blank)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BlindspotError(
            f"The model {draft.id} does not encode images of {draft.image_size} pixels as an image backbone would; "
            "choose a vision model such as DINOv2, or another image size."
        ) from error
    if features.ndim == 4:
        _, dim, height, width = features.shape
        return replace(draft, patch=draft.image_size // height, grid=(height, width), prefix_tokens=0, dim=dim)
    tokens, dim = features.shape[1:]
    prefix, side = _layout(encoder.backbone.config, draft, tokens)
    return replace(draft, patch=draft.image_size // side, grid=(side, side), prefix_tokens=prefix, dim=dim)


def _layout(config: object, draft: EncoderSpec, tokens: int) -> tuple[int, int]:
    """Prefix tokens and side of the patch grid of a token sequence, from the model's config."""
    prefix = 1 + getattr(config, "num_register_tokens", 0)
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int) and draft.image_size % patch:
        nearest = max(1, round(draft.image_size / patch)) * patch
        raise BlindspotError(
            f"The image size {draft.image_size} is not a multiple of the patch size {patch} of {draft.id}; "
            f"use {nearest}."
        )
    side = math.isqrt(max(0, tokens - prefix))
    if side == 0 or prefix + side * side != tokens or (isinstance(patch, int) and side * patch != draft.image_size):
        raise BlindspotError(
            f"The model {draft.id} gives {tokens} tokens, which is not a class token, its registers and a square grid; "
            "choose a backbone with that layout, such as DINOv2, DINOv3 or ViT."
        )
    return prefix, side
