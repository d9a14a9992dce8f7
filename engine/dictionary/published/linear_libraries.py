"""Readers of the libraries whose autoencoders are two matrices and two biases: saev, sparsify, SAELens and
dictionary_learning. Each raises a BlindspotError for what no dictionary of ours can express and for tensors that do not
fit each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.dictionary.published.conversion import (
    Imported,
    LinearAutoencoder,
    Options,
    gated_as_jump,
    norm_note,
    threshold_range,
)
from engine.dictionary.published.reading import Published
from engine.errors import BlindspotError

LATEST_SAEV_SCHEMA = 5
SAEV_THRESHOLD = "activation.threshold"
SPARSIFY_UNSUPPORTED = {
    "transcode": "a transcoder predicts another layer than it reads",
    "skip_connection": "its skip connection is no part of a dictionary",
    "signed": "its codes may be negative",
}
SAELENS_ARCHITECTURES = ("standard", "jumprelu", "gated", "topk")
DICTIONARY_LEARNING_CLASSES = (
    *("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"),
    *("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"),
)


def _matrices(published: Published, *shape: Any, subtracts: bool, bias: str = "b_enc") -> LinearAutoencoder:
    """W_enc [d, K], b_enc, W_dec [K, d] and b_dec."""
    encoder = published.take("W_enc", *(shape or (None, None))).T.contiguous()
    concepts, dim = encoder.shape
    offset = published.take("b_dec", dim)
    atoms, shift = published.take("W_dec", concepts, dim), published.take(bias, concepts)
    return LinearAutoencoder(encoder, shift, atoms, offset, centre=offset if subtracts else None)


def read_saev(published: Published, options: Options) -> Imported:
    """An autoencoder saved by `saev.nn.dump` of OSU-NLP's saev: one line of JSON, then a PyTorch state dict.

        a = W_enc' (x - b_dec) + b_enc    files without a schema, and schema 1 whose `cls` names the activation
        a = W_enc' x + b_enc              later files (schema 1 with `activation`, 2 to 5)
        x_hat = z W_dec + b_dec           (saev/nn.py of 0.1.0; src/saev/nn/modeling.py since)

    z is relu(a), the TopK of a, or, for BatchTopK with a saved `activation.threshold`, a where it exceeds that. Earlier
    BatchTopK files have no threshold and took the TopK of each token.
    """
    activation, parameters, subtracts = _saev_activation(published)
    linear, where = _matrices(published, subtracts=subtracts), published.where
    assumed = linear.assumptions(
        "none; saev may have centred and scaled its training tokens (scale_mean, scale_norm), which the file does not "
        "say: feed tokens in that scale",
        "b_dec, added to reconstructions",
    )
    if activation == "Relu" or (activation == "BatchTopK" and SAEV_THRESHOLD in published.tensors):
        threshold = published.take(SAEV_THRESHOLD) if activation == "BatchTopK" else torch.zeros(())
        assumed["threshold"] = f"codes exceed {threshold.item():.4g}" + (" (relu)" if threshold <= 0 else "")
        return linear.above(threshold.expand(len(linear.bias)), options, where, assumed)
    assumed["negative codes"] = "dropped; saev keeps them where fewer than k are positive"
    return linear.topk(options, parameters.get("top_k"), where, assumed)


def _saev_activation(published: Published) -> tuple[str, dict[str, Any], bool]:
    """Activation, its parameters, and whether b_dec is subtracted before the encoder."""
    header = published.header or {}
    schema = header.get("schema")
    if schema is None:
        return "Relu", {}, True
    config = header.get("cfg")
    if schema not in range(1, LATEST_SAEV_SCHEMA + 1) or not isinstance(config, dict):
        raise BlindspotError(
            f"{published.where} has saev's schema {schema!r}; 1 to {LATEST_SAEV_SCHEMA} can be imported."
        )
    activation: Any
    parameters: Any
    if schema == 1 and "activation" not in config:
        activation, parameters, subtracts = header.get("cls", "Relu"), config, True
    else:
        found = config.get("activation")
        found = found if isinstance(found, dict) else {}
        activation, parameters, subtracts = found.get("cls"), found.get("params"), False
    if activation not in ("Relu", "TopK", "BatchTopK"):
        raise BlindspotError(
            f"{published.where} has saev's activation {activation!r}; Relu, TopK and BatchTopK can be imported."
        )
    return activation, parameters if isinstance(parameters, dict) else {}, subtracts


def read_sparsify(published: Published, options: Options) -> Imported:
    """A TopK autoencoder saved by `SparseCoder.save_to_disk` of EleutherAI's sparsify (PyPI eai-sparsify 1.3).

    a = V (x - b_dec) + b,   z = TopK(relu(a)),   x_hat = z D + b_dec     (sparsify/sparse_coder.py, fused_encoder.py)
    """
    for name, reason in SPARSIFY_UNSUPPORTED.items():
        if published.config.get(name) or (name == "skip_connection" and "W_skip" in published.tensors):
            raise BlindspotError(f"{published.where} cannot be imported: {reason}; only TopK autoencoders can.")
    activation = published.config.get("activation", "topk")
    if activation != "topk":
        raise BlindspotError(f"{published.where} has the activation {activation!r}; only topk can be imported.")
    encoder = published.take("encoder.weight", None, None)
    concepts, dim = encoder.shape
    offset = published.take("b_dec", dim)
    bias, atoms = published.take("encoder.bias", concepts), published.take("W_dec", concepts, dim)
    linear = LinearAutoencoder(encoder, bias, atoms, offset, centre=offset)
    assumed = linear.assumptions("none; sparsify reads activations as they are", "b_dec, added to reconstructions")
    return linear.topk(options, published.config.get("k"), published.where, assumed)


def read_saelens(published: Published, options: Options) -> Imported:
    """An autoencoder saved by `SAE.save_model` or `save_inference_model` of SAELens (PyPI sae-lens 6), or older.

        a = W_enc' (x - b_dec if apply_b_dec_to_input) + b_enc,   z = f(a),   x_hat = z W_dec + b_dec

    f is relu (`standard`), relu above `threshold` (`jumprelu`, which trained BatchTopK and Matryoshka autoencoders
    become), a gate (`gated`) or TopK (`topk`), whose a may be multiplied by the norms of W_dec and its z divided by
    them (`rescale_acts_by_decoder_norm`). Source: sae_lens/saes/{sae,standard_sae,jumprelu_sae,gated_sae,topk_sae}.py.
    """
    config, where, architecture = published.config, published.where, _saelens_architecture(published)
    linear = _matrices(
        published,
        config.get("d_in"),
        config.get("d_sae"),
        subtracts=config.get("apply_b_dec_to_input", True),
        bias="b_mag" if architecture == "gated" else "b_enc",
    )
    encoder, bias, atoms, concepts = linear.encoder, linear.bias, linear.atoms, len(linear.bias)
    assumed = linear.assumptions("none", "b_dec, added to reconstructions")
    if architecture == "topk":
        rescaled = bool(config.get("rescale_acts_by_decoder_norm"))
        if rescaled:
            norms = atoms.norm(dim=-1, keepdim=True)
            encoder, bias, atoms = encoder * norms, bias * norms[:, 0], atoms / norms.clamp_min(1e-12)
        older = config.get("activation_fn_kwargs")
        told = published.setting("k") or (older.get("k") if isinstance(older, dict) else None)
        assumed["atom norm"] = norm_note(atoms) + (", with codes in that scale" if rescaled else "")
        linear = LinearAutoencoder(encoder, bias, atoms, linear.offset, linear.centre)
        return linear.topk(options, told, where, assumed)
    thresholds = torch.zeros(concepts)
    assumed["threshold"] = "codes exceed 0 (relu)"
    if architecture == "gated":
        gain, gate = published.take("r_mag", concepts), published.take("b_gate", concepts)
        encoder, bias, thresholds = gated_as_jump(encoder, gain, gate, bias)
        assumed["threshold"] = "per concept, from the gate's and the magnitude's biases"
    elif architecture == "jumprelu":
        thresholds = published.take("threshold", concepts)
        low, high = thresholds.min().item(), thresholds.max().item()
        assumed["threshold"] = f"per concept, {low:.4g} to {high:.4g}"
    linear = LinearAutoencoder(encoder, bias, atoms, linear.offset, linear.centre)
    return linear.above(thresholds, options, where, assumed)


def _saelens_architecture(published: Published) -> str:
    config, where = published.config, published.where
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    found = config.get("architecture", "standard")
    found = "topk" if found == "standard" and activation == "topk" else found
    if found not in SAELENS_ARCHITECTURES or activation not in ("relu", "topk"):
        raise BlindspotError(
            f"{where} has SAELens's architecture {found!r} with {activation!r}; {', '.join(SAELENS_ARCHITECTURES)} "
            "with relu can be imported, and a BatchTopK once save_inference_model has written it."
        )
    normalisation = config.get("normalize_activations", "none")
    if normalisation not in ("none", None, False):
        raise BlindspotError(
            f"{where} normalises its input ({normalisation}) by factors that the file does not hold; fold them with "
            "SAELens (fold_activation_norm_scaling_factor) and save it again."
        )
    if config.get("finetuning_scaling_factor"):
        raise BlindspotError(
            f"{where} has a finetuning scaling factor, which cannot be imported; fold it and save again."
        )
    return found


def read_dictionary_learning(published: Published, options: Options) -> Imported:
    """An autoencoder saved by `trainSAE` of dictionary_learning (Marks, Karvonen, Mueller; PyPI 0.1.0).

    The class named in config.json says how to read `ae.pt` (dictionary_learning/dictionary.py and trainers/):

        AutoEncoder            relu(V (x - bias) + b); opened as the library does, with atoms scaled to unit norm
        AutoEncoderNew         relu(V x + b), decoder with a bias of its own
        GatedAutoEncoder       see `gated_as_jump`
        JumpReluAutoEncoder    V x + b above `threshold`
        AutoEncoderTopK        TopK of relu(V (x - b_dec) + b)
        BatchTopKSAE, MatryoshkaBatchTopKSAE    relu(V (x - b_dec) + b) above `threshold`
    """
    trainer = published.config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in DICTIONARY_LEARNING_CLASSES:
        raise BlindspotError(
            f"{published.where}: the config.json beside it names the class {name!r} of dictionary_learning; "
            f"{', '.join(DICTIONARY_LEARNING_CLASSES)} can be imported."
        )
    linear, thresholds = _dictionary_learning(published, name)
    published.taken.add("k")  # of a token in a TopK; of a batch in the others, whose threshold is what counts
    assumed = linear.assumptions(
        "none; trainSAE scales its weights back to raw activations before it saves them", "added to reconstructions"
    )
    if name == "AutoEncoderTopK":
        k = published.tensors.get("k")
        found = k.item() if k is not None and k.numel() == 1 else trainer.get("k")
        assumed["threshold"] = "none; the saved threshold is not used, as in the library's own encode"
        return linear.topk(options, found, published.where, assumed)
    assumed["threshold"] = f"codes exceed {threshold_range(thresholds)}"
    if thresholds.min() < 0:
        assumed["threshold"] += " (below 0 means relu; -1 that training never set it)"
    return linear.above(thresholds, options, published.where, assumed)


def _dictionary_learning(published: Published, name: str) -> tuple[LinearAutoencoder, Tensor]:
    """The matrices of a class, and thresholds [K]."""
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        linear = _matrices(published, subtracts=name == "MatryoshkaBatchTopKSAE")
        jump = name == "JumpReluAutoEncoder"
        thresholds = published.take("threshold", len(linear.bias)) if jump else published.take("threshold")
        return linear, thresholds.expand(len(linear.bias))
    encoder = published.take("encoder.weight", None, None)
    concepts, dim = encoder.shape
    atoms = published.take("decoder.weight", dim, concepts).T.contiguous()
    if name == "GatedAutoEncoder":
        offset = published.take("decoder_bias", dim)
        biases = (published.take(bias, concepts) for bias in ("r_mag", "gate_bias", "mag_bias"))
        encoder, shift, thresholds = gated_as_jump(encoder, *biases)
        return LinearAutoencoder(encoder, shift, atoms, offset, centre=offset), thresholds
    shift = published.take("encoder.bias", concepts)
    if name == "AutoEncoderNew":
        return LinearAutoencoder(encoder, shift, atoms, published.take("decoder.bias", dim)), torch.zeros(concepts)
    if name == "AutoEncoder":
        offset, norms = published.take("bias", dim), atoms.norm(dim=-1).clamp_min(1e-12)
        encoder, atoms = encoder * norms[:, None], atoms / norms[:, None]
        return LinearAutoencoder(encoder, shift * norms, atoms, offset, centre=offset), torch.zeros(concepts)
    offset = published.take("b_dec", dim)
    linear = LinearAutoencoder(encoder, shift, atoms, offset, centre=offset)
    return linear, published.take("threshold").expand(concepts)
