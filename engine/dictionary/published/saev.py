"""OSU-NLP's saev: one line of JSON, then a PyTorch state dict with W_enc [d, K], b_enc, W_dec [K, d], b_dec.

    a = W_enc' (x - b_dec) + b_enc    files without a schema, and schema 1 whose `cls` names the activation
    a = W_enc' x + b_enc              later files (schema 1 with `activation`, 2 to 5)
    x_hat = z W_dec + b_dec           (saev/nn.py of 0.1.0; src/saev/nn/modeling.py since)

z is relu(a), the TopK of a, or, for BatchTopK with a saved `activation.threshold`, a where it exceeds that. Earlier
BatchTopK files have no threshold and took the TopK of each token.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.dictionary.published.linear import Imported, Linear, Options, active, norm_note, width, width_note
from engine.dictionary.published.material import Material
from engine.errors import BlindspotError

LATEST_SCHEMA = 5
THRESHOLD = "activation.threshold"


def matches(material: Material) -> bool:
    """Whether a JSON line precedes the weights."""
    return material.header is not None


def read(material: Material, options: Options) -> Imported:
    """An autoencoder saved by `saev.nn.dump`.

    Raises
    ------
    BlindspotError
        For an unknown schema or activation, or tensors that do not fit each other.
    """
    activation, parameters, subtracts = _understand(material)
    encoder = material.take("W_enc", None, None).T.contiguous()
    concepts, dim = encoder.shape
    offset = material.take("b_dec", dim)
    linear = Linear(
        encoder,
        material.take("b_enc", concepts),
        material.take("W_dec", concepts, dim),
        offset,
        centre=offset if subtracts else None,
    )
    assumed = {
        "normalisation": "none; saev may have centred and scaled its training tokens (scale_mean, scale_norm), which "
        "the file does not say: feed tokens in that scale",
        "centring": "the decoder bias is subtracted before the encoder"
        if subtracts
        else "nothing is subtracted before the encoder",
        "decoder bias": "b_dec, added to reconstructions",
        "atom norm": norm_note(linear.atoms),
    }
    where = material.where
    if activation == "Relu" or (activation == "BatchTopK" and THRESHOLD in material.tensors):
        threshold = material.take(THRESHOLD) if activation == "BatchTopK" else torch.zeros(())
        kept = width(options, concepts, where)
        assumed["sparsity"] = width_note(kept, concepts)
        assumed["threshold"] = f"codes exceed {threshold.item():.4g}" + (" (relu)" if threshold <= 0 else "")
        return Imported(linear.above(threshold.expand(concepts), kept), assumed)
    sparsity = active(options, parameters.get("top_k"), concepts, where)
    assumed["sparsity"] = (
        f"TopK, k = {sparsity}; negative codes, which saev keeps where fewer are positive, are dropped"
    )
    assumed["threshold"] = "none"
    return Imported(linear.topk(sparsity), assumed)


def _understand(material: Material) -> tuple[str, dict[str, Any], bool]:
    """Activation, its parameters, and whether b_dec is subtracted before the encoder."""
    header = material.header or {}
    schema = header.get("schema")
    if schema is None:
        return "Relu", {}, True
    config = header.get("cfg")
    if schema not in range(1, LATEST_SCHEMA + 1) or not isinstance(config, dict):
        raise BlindspotError(f"{material.where} has saev's schema {schema!r}; 1 to {LATEST_SCHEMA} can be imported.")
    if schema == 1 and "activation" not in config:
        activation, parameters, subtracts = header.get("cls", "Relu"), config, True
    else:
        found = config.get("activation")
        found = found if isinstance(found, dict) else {}
        activation, parameters, subtracts = found.get("cls"), found.get("params"), False
        parameters = parameters if isinstance(parameters, dict) else {}
    if activation not in ("Relu", "TopK", "BatchTopK"):
        raise BlindspotError(
            f"{material.where} has saev's activation {activation!r}; Relu, TopK and BatchTopK can be imported."
        )
    return activation, parameters, subtracts
