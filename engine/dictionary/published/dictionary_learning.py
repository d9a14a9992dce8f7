"""dictionary_learning (Marks, Karvonen, Mueller; PyPI 0.1.0): `config.json` and a state dict `ae.pt`.

The class named in the configuration says how to read the tensors (dictionary_learning/dictionary.py and trainers/):

    AutoEncoder            relu(V (x - bias) + b); opened as the library does, with atoms scaled to unit norm
    AutoEncoderNew         relu(V x + b), decoder with a bias of its own
    GatedAutoEncoder       see `gated`
    JumpReluAutoEncoder    V x + b above `threshold`
    AutoEncoderTopK        TopK of relu(V (x - b_dec) + b)
    BatchTopKSAE, MatryoshkaBatchTopKSAE    relu(V (x - b_dec) + b) above `threshold`
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.dictionary.published.gated import as_jump
from engine.dictionary.published.linear import Imported, Linear, Options, active, norm_note, width, width_note
from engine.dictionary.published.material import Material
from engine.errors import BlindspotError


def matches(material: Material) -> bool:
    """Whether the configuration names a class of dictionary_learning."""
    return isinstance(material.config.get("trainer"), dict) and "dict_class" in material.config["trainer"]


def read(material: Material, options: Options) -> Imported:
    """An autoencoder saved by `trainSAE`.

    Raises
    ------
    BlindspotError
        For an unknown class, or tensors that do not fit each other.
    """
    trainer = material.config.get("trainer")
    name = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if not isinstance(name, str) or name not in CLASSES:
        raise BlindspotError(
            f"{material.where}: the config.json beside it names the class {name!r} of dictionary_learning; "
            f"{', '.join(CLASSES)} can be imported."
        )
    linear, thresholds = CLASSES[name](material)
    concepts = len(linear.bias)
    assumed = {
        "normalisation": "none; trainSAE scales its weights back to raw activations before it saves them",
        "centring": "nothing is subtracted before the encoder"
        if linear.centre is None
        else "the decoder bias is subtracted before the encoder",
        "decoder bias": "added to reconstructions",
        "atom norm": norm_note(linear.atoms),
    }
    if thresholds is None:
        found = material.tensors.get("k")
        found = found.item() if found is not None and found.numel() == 1 else trainer.get("k")
        sparsity = active(options, found, concepts, material.where)
        assumed["sparsity"] = f"TopK of relu, k = {sparsity}"
        assumed["threshold"] = "none; the saved threshold is not used, as in the library's own encode"
        return Imported(linear.topk(sparsity), assumed)
    kept = width(options, concepts, material.where)
    low, high = thresholds.min().item(), thresholds.max().item()
    assumed["sparsity"] = width_note(kept, concepts)
    assumed["threshold"] = f"codes exceed {low:.4g}" + (f" to {high:.4g}, per concept" if high > low else "")
    if low < 0:
        assumed["threshold"] += " (below 0 means relu; -1 that training never set it)"
    return Imported(linear.above(thresholds, kept), assumed)


def _standard(material: Material) -> tuple[Linear, Tensor]:
    encoder, atoms = _modules(material)
    concepts, dim = encoder.shape
    offset, norms = material.take("bias", dim), atoms.norm(dim=-1).clamp_min(1e-12)
    bias = material.take("encoder.bias", concepts) * norms
    linear = Linear(encoder * norms[:, None], bias, atoms / norms[:, None], offset, centre=offset)
    return linear, torch.zeros(concepts)


def _new(material: Material) -> tuple[Linear, Tensor]:
    encoder, atoms = _modules(material)
    concepts, dim = encoder.shape
    linear = Linear(encoder, material.take("encoder.bias", concepts), atoms, material.take("decoder.bias", dim))
    return linear, torch.zeros(concepts)


def _gated(material: Material) -> tuple[Linear, Tensor]:
    encoder, atoms = _modules(material)
    concepts, dim = encoder.shape
    offset = material.take("decoder_bias", dim)
    biases = (material.take(name, concepts) for name in ("r_mag", "gate_bias", "mag_bias"))
    encoder, bias, thresholds = as_jump(encoder, *biases)
    return Linear(encoder, bias, atoms, offset, centre=offset), thresholds


def _topk(material: Material) -> tuple[Linear, None]:
    return _batch_topk(material)[0], None


def _batch_topk(material: Material) -> tuple[Linear, Tensor]:
    encoder, atoms = _modules(material)
    concepts, dim = encoder.shape
    offset = material.take("b_dec", dim)
    linear = Linear(encoder, material.take("encoder.bias", concepts), atoms, offset, centre=offset)
    return linear, material.take("threshold").expand(concepts)


def _jump(material: Material) -> tuple[Linear, Tensor]:
    linear = _matrices(material, subtracts=False)
    return linear, material.take("threshold", len(linear.bias))


def _matryoshka(material: Material) -> tuple[Linear, Tensor]:
    linear = _matrices(material, subtracts=True)
    return linear, material.take("threshold").expand(len(linear.bias))


def _modules(material: Material) -> tuple[Tensor, Tensor]:
    """Encoder and atoms [K, d] of two nn.Linear."""
    encoder = material.take("encoder.weight", None, None)
    return encoder, material.take("decoder.weight", *reversed(encoder.shape)).T.contiguous()


def _matrices(material: Material, subtracts: bool) -> Linear:
    encoder = material.take("W_enc", None, None).T.contiguous()
    concepts, dim = encoder.shape
    offset = material.take("b_dec", dim)
    atoms, bias = material.take("W_dec", concepts, dim), material.take("b_enc", concepts)
    return Linear(encoder, bias, atoms, offset, centre=offset if subtracts else None)


CLASSES: dict[str, Callable[[Material], tuple[Linear, Tensor | None]]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jump,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
