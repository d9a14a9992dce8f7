"""overcomplete (Fel et al., PyPI 0.3.0): TopKSAE, BatchTopKSAE, JumpSAE, RATopKSAE and RAJumpSAE, as state dicts or as
whole modules (see `modules`).

    a = V x + b,   z = rule(relu(a)),   x_hat = z D

V is `encoder.final_block.0`; a LayerNorm over the concepts or a BatchNorm over tokens may follow
(`encoder.final_block.1`). D is exp(m) times the rows of `dictionary._weights`, brought to unit norm, or
exp(m) (W C + Lambda) with the constraints that `RelaxedArchetypalDictionary.get_dictionary` puts on W and Lambda (see
`archetypal`). The rule, k or a threshold, is in no state dict but a JumpSAE's: it comes from the user, from the
attributes of a whole module, from values saved beside the state dict, or from a config.json.

matybohacek/RA-SAE-DINOv2-32k, the dictionary of paper 004, is a BatchTopKSAE of this library with a LayerNorm, an
archetypal dictionary, and the threshold 0.829 in its config.json (`running_threshold`). It is published as a whole
module, in a DataParallel, whose own `running_threshold` is None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.published.linear import (
    Imported,
    Linear,
    Options,
    active,
    at_least,
    norm_note,
    width,
    width_note,
)
from engine.dictionary.published.material import Material
from engine.errors import BlindspotError

NORM_EPS = 1e-5
SUM_EPS = 1e-8
DELTA = 1.0
OVERSHOOT = 1.1
"""Slack longer than delta by less than this factor is what one optimiser step leaves and the library clips away."""

ROWS = 1024


def matches(material: Material) -> bool:
    """Whether the tensors have overcomplete's names."""
    return any(name.startswith("dictionary.") for name in material.tensors)


def read(material: Material, options: Options) -> Imported:
    """An autoencoder, or its `state_dict()`, that was saved.

    Raises
    ------
    BlindspotError
        When the encoder is not linear, its rule is not known, or tensors do not fit each other.
    """
    assumed = {"normalisation": "none; overcomplete reads activations as they are"}
    assumed["centring"], assumed["decoder bias"] = "nothing is subtracted before the encoder", "none"
    atoms, assumed["atoms"] = _atoms(material)
    concepts, dim = atoms.shape
    encoder, bias = _encoder(material, atoms)
    layer_norm = None
    if "encoder.final_block.1.running_var" in material.tensors:
        encoder, bias = _fold_batch_norm(material, encoder, bias)
        assumed["normalisation"] += "; the encoder's BatchNorm over tokens is folded into its weights"
    elif "encoder.final_block.1.weight" in material.tensors:
        layer_norm = tuple(material.take(f"encoder.final_block.1.{name}", concepts) for name in ("weight", "bias"))
        assumed["normalisation"] += "; the encoder's LayerNorm over the concepts of a token is kept"
    assumed["atom norm"] = norm_note(atoms)
    linear = Linear(encoder, bias, atoms, torch.zeros(dim), layer_norm=layer_norm)
    thresholds = _thresholds(material, options, concepts)
    if thresholds is None:
        sparsity = active(options, material.setting("top_k", "k", "sparsity"), concepts, material.where)
        assumed["sparsity"], assumed["threshold"] = f"TopK of relu, k = {sparsity}", "none"
        archetypal = _archetypal(material, linear, sparsity)
        return Imported(archetypal or linear.topk(sparsity), assumed)
    kept = width(options, concepts, material.where)
    low, high = thresholds.min().item(), thresholds.max().item()
    assumed["sparsity"] = width_note(kept, concepts)
    assumed["threshold"] = f"codes are at least {low:.4g}" + (f" to {high:.4g}, per concept" if high > low else "")
    return Imported(linear.above(at_least(thresholds), kept), assumed)


def _encoder(material: Material, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """V [K, d] and b [K] of a linear encoder: MLPEncoder without hidden blocks, or TieableEncoder."""
    names = material.tensors.keys()
    if "encoder.final_block.0.weight" in names and not any(name.startswith("encoder.mlp_blocks") for name in names):
        weight = material.take("encoder.final_block.0.weight", *atoms.shape)
        return weight, material.take("encoder.final_block.0.bias", len(atoms))
    tied = any(name.startswith("encoder.tied_to.") for name in names)
    if not tied and "encoder.weight" not in names:
        raise BlindspotError(
            f"{material.where} has an encoder that is not linear (or none); only overcomplete's 'linear', 'mlp_ln_1', "
            "'mlp_bn_1' and tied encoders can be imported."
        )
    bias = material.take("encoder.bias", len(atoms)) if "encoder.bias" in names else torch.zeros(len(atoms))
    return (atoms if tied else material.take("encoder.weight", *atoms.shape)), bias


def _fold_batch_norm(material: Material, encoder: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    gain, shift, mean, variance = (
        material.take(f"encoder.final_block.1.{name}", len(bias))
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain * (variance + NORM_EPS).rsqrt()
    return encoder * gain[:, None], (bias - mean) * gain + shift


def _thresholds(material: Material, options: Options, concepts: int) -> Tensor | None:
    """Thresholds [K] that codes have to reach; None for a TopK."""
    if "thresholds" in material.tensors:
        return material.take("thresholds", concepts).exp()
    threshold = material.setting("running_threshold", "threshold") if options.threshold is None else options.threshold
    if threshold is None:
        if material.config.get("class") == "BatchTopKSAE":
            raise BlindspotError(f"{material.where} is a BatchTopK without its threshold; give --threshold T.")
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < float("inf"):
        raise BlindspotError(f"{material.where}: the threshold {threshold!r} is not a number of 0 or more.")
    return torch.full((concepts,), float(threshold))


def _atoms(material: Material) -> tuple[Tensor, str]:
    """D [K, d], and how it was understood."""
    scale = material.take("dictionary.multiplier").exp() if "dictionary.multiplier" in material.tensors else 1.0
    if "dictionary.W" not in material.tensors:
        if material.config.get("normalization", "l2") != "l2":
            raise BlindspotError(
                f"{material.where} normalises its atoms by {material.config['normalization']!r}; only overcomplete's "
                "default, 'l2', can be imported."
            )
        weights = material.take("dictionary._weights", None, None)
        norms = weights.norm(dim=-1)
        stored = f"(stored rows have norm {norms.min().item():.3g} to {norms.max().item():.3g})"
        return F.normalize(weights, dim=-1) * scale, f"DictionaryLayer with its default normalisation, l2 {stored}"
    weights, points, slack = _archetypes(material)
    delta, explained = _delta(material, slack)
    slack = slack * (delta / slack.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    atoms = torch.cat([_stochastic(part) @ points for part in weights.split(ROWS)])
    return scale * (atoms + slack), f"convex combinations of {len(points)} points plus slack, {explained}"


def _stochastic(weights: Tensor) -> Tensor:
    """Rows of at least 0 that sum to 1; a row without any positive entry stays 0, as overcomplete leaves it."""
    positive = weights.relu()
    return positive / (positive.sum(dim=-1, keepdim=True) + SUM_EPS)


def _archetypes(material: Material) -> tuple[Tensor, Tensor, Tensor]:
    """W [K, c], C [c, d] and Lambda [K, d]."""
    points = material.take("dictionary.C", None, None)
    slack = material.take("dictionary.Relax", None, points.shape[1])
    return material.take("dictionary.W", len(slack), len(points)), points, slack


def _delta(material: Material, slack: Tensor) -> tuple[float, str]:
    """Largest norm of the slack, which the state dict does not say."""
    told, longest = material.setting("delta"), slack.norm(dim=-1).max().item()
    if isinstance(told, int | float) and told >= 0:
        return float(told), f"at most {told:g} long"
    if longest <= DELTA * OVERSHOOT:
        return DELTA, f"at most {DELTA:g} long (the default)"
    return longest, f"up to {longest:.3g} long, left as it is because its limit is not in the file"


def _archetypal(material: Material, linear: Linear, sparsity: int) -> RelaxedArchetypal | None:
    """The dictionary with its convex weights, where ours means the same by them."""
    if "dictionary.W" not in material.tensors or linear.layer_norm is not None:
        return None
    weights, points, slack = _archetypes(material)
    if (weights.relu().sum(dim=-1) <= 0).any():
        return None  # overcomplete decodes such a concept as its slack alone; ours would put it on a candidate
    (concepts, dim), delta = slack.shape, _delta(material, slack)[0]
    made = RelaxedArchetypal(dim, concepts, sparsity, candidates=len(points), delta=delta)
    with torch.no_grad():
        made.encoder.weight.copy_(linear.encoder)
        made.encoder.bias.copy_(linear.bias)
        made.points.copy_(points)
        made.weights.copy_(weights)
        made.slack.copy_(slack)
        if "dictionary.multiplier" in material.tensors:
            made.log_multiplier.copy_(material.take("dictionary.multiplier"))
    made.constrain()
    return made.eval().requires_grad_(False)
