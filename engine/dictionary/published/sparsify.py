"""EleutherAI's sparsify (PyPI eai-sparsify 1.3): `cfg.json` and `sae.safetensors` with a TopK autoencoder.

a = V (x - b_dec) + b,   z = TopK(relu(a)),   x_hat = z D + b_dec     (sparsify/sparse_coder.py, fused_encoder.py)
"""

from __future__ import annotations

from engine.dictionary.published.linear import Imported, Linear, Options, active, norm_note
from engine.dictionary.published.material import Material
from engine.errors import BlindspotError

UNSUPPORTED = {
    "transcode": "a transcoder predicts another layer than it reads",
    "skip_connection": "its skip connection is no part of a dictionary",
    "signed": "its codes may be negative",
}


def matches(material: Material) -> bool:
    """Whether the tensors have sparsify's names."""
    return {"encoder.weight", "W_dec", "b_dec"} <= material.tensors.keys()


def read(material: Material, options: Options) -> Imported:
    """An autoencoder saved by `SparseCoder.save_to_disk`.

    Raises
    ------
    BlindspotError
        For a transcoder, a skip connection, another activation than TopK, or tensors that do not fit each other.
    """
    for name, reason in UNSUPPORTED.items():
        if material.config.get(name) or (name == "skip_connection" and "W_skip" in material.tensors):
            raise BlindspotError(f"{material.where} cannot be imported: {reason}; only TopK autoencoders can.")
    activation = material.config.get("activation", "topk")
    if activation != "topk":
        raise BlindspotError(f"{material.where} has the activation {activation!r}; only topk can be imported.")
    encoder = material.take("encoder.weight", None, None)
    concepts, dim = encoder.shape
    offset = material.take("b_dec", dim)
    linear = Linear(
        encoder, material.take("encoder.bias", concepts), material.take("W_dec", concepts, dim), offset, centre=offset
    )
    sparsity = active(options, material.config.get("k"), concepts, material.where)
    assumed = {
        "normalisation": "none; sparsify reads activations as they are",
        "centring": "the decoder bias is subtracted before the encoder",
        "decoder bias": "b_dec, added to reconstructions",
        "sparsity": f"TopK of relu, k = {sparsity}",
        "threshold": "none",
        "atom norm": norm_note(linear.atoms),
    }
    return Imported(linear.topk(sparsity), assumed)
