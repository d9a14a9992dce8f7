"""overcomplete (Fel et al., PyPI 0.3.0): TopKSAE, BatchTopKSAE, JumpSAE, RATopKSAE and RAJumpSAE, as state dicts or as
whole modules (see `modules`).

    a = V x + b,   z = rule(relu(a)),   x_hat = z D

V is `encoder.final_block.0`; a LayerNorm over the concepts or a BatchNorm over tokens may follow
(`encoder.final_block.1`). D is exp(m) times the rows of `dictionary._weights`, brought to unit norm, or
exp(m) (W C + Lambda) with the constraints that `RelaxedArchetypalDictionary.get_dictionary` puts on W and Lambda (see
`archetypal`). The rule, k or a threshold, is in no state dict but a JumpSAE's: it comes from the user, from the
attributes of a whole module, from values saved beside the state dict, or from a config.json.

matybohacek/RA-SAE-DINOv2-32k, that of "Conceptual Blindspots in Generative Image Models", is a BatchTopKSAE of this
library with a LayerNorm, an archetypal dictionary, and the threshold 0.829 in its config.json
(`running_threshold`). It is published as a whole module, in a DataParallel, whose own `running_threshold` is None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.published.conversion import Imported, LinearAutoencoder, Options, threshold_range
from engine.dictionary.published.reading import Published
from engine.errors import BlindspotError

NORM_EPS = 1e-5
SUM_EPS = 1e-8
DELTA = 1.0
ROWS = 1024
OVERSHOOT = 1.1
"""Slack longer than delta by less than this factor is what one optimiser step leaves and the library clips away."""


def read_overcomplete(published: Published, options: Options) -> Imported:
    """A saved autoencoder or its `state_dict()`; refused if its encoder is not linear or its rule not known."""
    atoms, stored = _atoms(published)
    concepts, dim = atoms.shape
    encoder, bias = _encoder(published, atoms)
    layer_norm, normalisation = None, "none; overcomplete reads activations as they are"
    if "encoder.final_block.1.running_var" in published.tensors:
        encoder, bias = _fold_batch_norm(published, encoder, bias)
        normalisation += "; the encoder's BatchNorm over tokens is folded into its weights"
    elif "encoder.final_block.1.weight" in published.tensors:
        gain, shift = (published.take(f"encoder.final_block.1.{name}", concepts) for name in ("weight", "bias"))
        layer_norm = (gain, shift)
        normalisation += "; the encoder's LayerNorm over the concepts of a token is kept"
    linear = LinearAutoencoder(encoder, bias, atoms, torch.zeros(dim), layer_norm=layer_norm)
    assumed = linear.assumptions(normalisation, "none") | {"atoms": stored}
    thresholds = _thresholds(published, options, concepts)
    if thresholds is None:
        imported = linear.topk(options, published.setting("top_k", "k", "sparsity"), published.where, assumed)
        archetypal = _archetypal(published, linear, imported.dictionary.sparsity)
        return imported if archetypal is None else Imported(archetypal, imported.assumed)
    assumed["threshold"] = f"codes are at least {threshold_range(thresholds)}"
    # The threshold t' for which a > t' says what a >= t says, in float32.
    above = torch.nextafter(thresholds.float(), torch.tensor(-torch.inf))
    return linear.above(above, options, published.where, assumed)


def _encoder(published: Published, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """V [K, d] and b [K] of a linear encoder: MLPEncoder without hidden blocks, or TieableEncoder."""
    names = published.tensors.keys()
    if "encoder.final_block.0.weight" in names and not any(name.startswith("encoder.mlp_blocks") for name in names):
        weight = published.take("encoder.final_block.0.weight", *atoms.shape)
        return weight, published.take("encoder.final_block.0.bias", len(atoms))
    copies = {name for name in names if name.startswith("encoder.tied_to.")}
    published.taken.update(copies)  # the dictionary's own tensors, once more
    tied = bool(copies)
    if not tied and "encoder.weight" not in names:
        raise BlindspotError(
            f"{published.where} has an encoder that is not linear (or none); only overcomplete's 'linear', 'mlp_ln_1', "
            "'mlp_bn_1' and tied encoders can be imported."
        )
    bias = published.take("encoder.bias", len(atoms)) if "encoder.bias" in names else torch.zeros(len(atoms))
    return (atoms if tied else published.take("encoder.weight", *atoms.shape)), bias


def _fold_batch_norm(published: Published, encoder: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    gain, shift, mean, variance = (
        published.take(f"encoder.final_block.1.{name}", len(bias))
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain * (variance + NORM_EPS).rsqrt()
    return encoder * gain[:, None], (bias - mean) * gain + shift


def _thresholds(published: Published, options: Options, concepts: int) -> Tensor | None:
    """Thresholds [K] that codes have to reach; None for a TopK."""
    if "thresholds" in published.tensors:
        return published.take("thresholds", concepts).exp()
    threshold = published.setting("running_threshold", "threshold") if options.threshold is None else options.threshold
    if threshold is None:
        if published.config.get("class") == "BatchTopKSAE":
            raise BlindspotError(f"{published.where} is a BatchTopK without its threshold; give --threshold T.")
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < float("inf"):
        raise BlindspotError(f"{published.where}: the threshold {threshold!r} is not a number of 0 or more.")
    return torch.full((concepts,), float(threshold))


def _atoms(published: Published) -> tuple[Tensor, str]:
    """D [K, d], and how it was understood."""
    scale = published.take("dictionary.multiplier").exp() if "dictionary.multiplier" in published.tensors else 1.0
    if "dictionary.W" not in published.tensors:
        if published.config.get("normalization", "l2") != "l2":
            raise BlindspotError(
                f"{published.where} normalises its atoms by {published.config['normalization']!r}; only overcomplete's "
                "default, 'l2', can be imported."
            )
        weights = published.take("dictionary._weights", None, None)
        norms = weights.norm(dim=-1)
        stored = f"(stored rows have norm {norms.min().item():.3g} to {norms.max().item():.3g})"
        return F.normalize(weights, dim=-1) * scale, f"DictionaryLayer with its default normalisation, l2 {stored}"
    weights, points, slack = _archetypes(published)
    delta, explained = _delta(published, slack)
    slack = slack * (delta / slack.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    # A row of W without any positive entry stays 0, as overcomplete leaves it.
    rows = (part.relu() for part in weights.split(ROWS))
    atoms = torch.cat([part / (part.sum(dim=-1, keepdim=True) + SUM_EPS) @ points for part in rows])
    return scale * (atoms + slack), f"convex combinations of {len(points)} points plus slack, {explained}"


def _archetypes(published: Published) -> tuple[Tensor, Tensor, Tensor]:
    """W [K, c], C [c, d] and Lambda [K, d]."""
    points = published.take("dictionary.C", None, None)
    slack = published.take("dictionary.Relax", None, points.shape[1])
    return published.take("dictionary.W", len(slack), len(points)), points, slack


def _delta(published: Published, slack: Tensor) -> tuple[float, str]:
    """Largest norm of the slack, which the state dict does not say."""
    told, longest = published.setting("delta"), slack.norm(dim=-1).max().item()
    if isinstance(told, int | float) and told >= 0:
        return float(told), f"at most {told:g} long"
    if longest <= DELTA * OVERSHOOT:
        return DELTA, f"at most {DELTA:g} long (the default)"
    return longest, f"up to {longest:.3g} long, left as it is because its limit is not in the file"


def _archetypal(published: Published, linear: LinearAutoencoder, sparsity: int) -> RelaxedArchetypal | None:
    """The dictionary with its convex weights, where ours means the same by them."""
    if "dictionary.W" not in published.tensors or linear.layer_norm is not None:
        return None
    weights, points, slack = _archetypes(published)
    if (weights.relu().sum(dim=-1) <= 0).any():
        return None  # overcomplete decodes such a concept as its slack alone; ours would put it on a candidate
    (concepts, dim), delta = slack.shape, _delta(published, slack)[0]
    made = RelaxedArchetypal(dim, concepts, sparsity, candidates=len(points), delta=delta)
    with torch.no_grad():
        made.encoder.weight.copy_(linear.encoder)
        made.encoder.bias.copy_(linear.bias)
        made.points.copy_(points)
        made.weights.copy_(weights)
        made.slack.copy_(slack)
        if "dictionary.multiplier" in published.tensors:
            made.log_multiplier.copy_(published.take("dictionary.multiplier"))
    made.constrain()
    return made.eval().requires_grad_(False)
