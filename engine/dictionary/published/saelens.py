"""SAELens (PyPI sae-lens 6): `cfg.json` and `sae_weights.safetensors` with W_enc [d, K], b_enc, W_dec [K, d], b_dec.

    a = W_enc' (x - b_dec if apply_b_dec_to_input) + b_enc,   z = f(a),   x_hat = z W_dec + b_dec

f is relu (`standard`), relu above `threshold` (`jumprelu`, which trained BatchTopK and Matryoshka autoencoders become),
a gate (`gated`) or TopK (`topk`), whose a may be multiplied by the norms of W_dec and its z divided by them
(`rescale_acts_by_decoder_norm`). Source: sae_lens/saes/{sae,standard_sae,jumprelu_sae,gated_sae,topk_sae}.py.
"""

from __future__ import annotations

import torch

from engine.dictionary.published.gated import as_jump
from engine.dictionary.published.linear import Imported, Linear, Options, active, norm_note, width, width_note
from engine.dictionary.published.material import Material
from engine.errors import BlindspotError

ARCHITECTURES = ("standard", "jumprelu", "gated", "topk")


def matches(material: Material) -> bool:
    """Whether the configuration is SAELens's."""
    return {"d_in", "d_sae"} <= material.config.keys() and {"W_enc", "W_dec"} <= material.tensors.keys()


def read(material: Material, options: Options) -> Imported:
    """An autoencoder saved by `SAE.save_model` or `save_inference_model`, of version 6 or older.

    Raises
    ------
    BlindspotError
        For an architecture or a normalisation that no dictionary of ours can express, or tensors that do not fit.
    """
    config, where = material.config, material.where
    architecture = _architecture(material)
    encoder = material.take("W_enc", config.get("d_in"), config.get("d_sae")).T.contiguous()
    concepts, dim = encoder.shape
    atoms, offset = material.take("W_dec", concepts, dim), material.take("b_dec", dim)
    centre = offset if config.get("apply_b_dec_to_input", True) else None
    assumed = {
        "normalisation": "none",
        "centring": "nothing is subtracted before the encoder"
        if centre is None
        else "the decoder bias is subtracted before the encoder",
        "decoder bias": "b_dec, added to reconstructions",
    }
    if architecture == "topk":
        bias, rescaled = material.take("b_enc", concepts), bool(config.get("rescale_acts_by_decoder_norm"))
        if rescaled:
            norms = atoms.norm(dim=-1, keepdim=True)
            encoder, bias, atoms = encoder * norms, bias * norms[:, 0], atoms / norms.clamp_min(1e-12)
        sparsity = active(options, _topk(material), concepts, where)
        assumed["threshold"] = "none"
        assumed["sparsity"] = f"TopK of relu, k = {sparsity}"
        assumed["atom norm"] = norm_note(atoms) + (", with codes in that scale" if rescaled else "")
        return Imported(Linear(encoder, bias, atoms, offset, centre).topk(sparsity), assumed)
    if architecture == "gated":
        encoder, bias, thresholds = as_jump(
            encoder, *(material.take(name, concepts) for name in ("r_mag", "b_gate", "b_mag"))
        )
        assumed["threshold"] = "per concept, from the gate's and the magnitude's biases"
    else:
        bias = material.take("b_enc", concepts)
        jump = architecture == "jumprelu"
        thresholds = material.take("threshold", concepts) if jump else torch.zeros(concepts)
        low, high = thresholds.min().item(), thresholds.max().item()
        assumed["threshold"] = f"per concept, {low:.4g} to {high:.4g}" if jump else "codes exceed 0 (relu)"
    kept = width(options, concepts, where)
    assumed["sparsity"] = width_note(kept, concepts)
    assumed["atom norm"] = norm_note(atoms)
    return Imported(Linear(encoder, bias, atoms, offset, centre).above(thresholds, kept), assumed)


def _architecture(material: Material) -> str:
    config, where = material.config, material.where
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    found = config.get("architecture", "standard")
    found = "topk" if found == "standard" and activation == "topk" else found
    if found not in ARCHITECTURES or activation not in ("relu", "topk"):
        raise BlindspotError(
            f"{where} has SAELens's architecture {found!r} with {activation!r}; {', '.join(ARCHITECTURES)} with relu "
            "can be imported, and a BatchTopK once save_inference_model has written it."
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


def _topk(material: Material) -> object:
    older = material.config.get("activation_fn_kwargs")
    return material.setting("k") or (older.get("k") if isinstance(older, dict) else None)
