"""Intrinsic scores: how strongly an image excites a concept or a neuron (arXiv:2605.17504, eq. 213).

Samplers take any differentiable function of images; these are the ones that the papers study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from engine.dictionary.base import Dictionary
    from engine.vision.encoder import Encoder


class ConceptScore:
    """s(x) = sum_k weight_k (peak max_uv A_k + mean mean_uv relu(A_k)).

    A_k is concept k's pre-activation map over the patch grid, before Top-K and ReLU, so that a gradient exists before
    the concept fires.

    Parameters
    ----------
    encoder, dictionary
        The features and concepts that the score is computed from.
    concepts
        Ids of the concepts, [c].
    weights
        Weight of each concept, [c]; 1 for all by default.
    peak, mean
        Weights of the map's maximum and of its rectified mean.

    Raises
    ------
    BlindspotError
        If a concept is not in the dictionary, or there is not one weight for each.
    """

    def __init__(
        self,
        encoder: Encoder,
        dictionary: Dictionary,
        concepts: Sequence[int],
        weights: Sequence[float] | None = None,
        peak: float = 0.3,
        mean: float = 0.7,
    ):
        self.encoder, self.dictionary = encoder, dictionary
        self.concepts = [int(concept) for concept in concepts]
        self.weights = [1.0] * len(self.concepts) if weights is None else [float(weight) for weight in weights]
        self.peak, self.mean = peak, mean
        wrong = [concept for concept in self.concepts if not 0 <= concept < dictionary.concepts]
        if wrong or not self.concepts:
            raise BlindspotError(
                f"There is no concept {wrong[0] if wrong else 'to draw'}: choose from 0 to {dictionary.concepts - 1}."
            )
        if len(self.weights) != len(self.concepts):
            raise BlindspotError(f"{len(self.concepts)} concepts need as many weights, not {len(self.weights)}.")

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Scores of images in [0, 1]; differentiable."""
        return self.reduce(self.maps(images))

    def maps(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n h w c"]:
        """Pre-activation maps of images."""
        patches = self.encoder(images).patches
        concepts = torch.tensor(self.concepts, device=patches.device)
        return self.dictionary.preactivate(patches.flatten(0, 2), concepts).unflatten(0, patches.shape[:3])

    def reduce(self, maps: Float[Tensor, "n h w c"]) -> Float[Tensor, " n"]:
        """Scores of maps."""
        return reduce_maps(maps, self.peak, self.mean) @ maps.new_tensor(self.weights)

    def codes_score(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """The same reduction of the final sparse codes, which are zero where the concept lost the Top-K."""
        patches = self.encoder(images).patches
        codes = self.dictionary.encode(patches.flatten(0, 2))
        concepts = torch.tensor(self.concepts, device=patches.device)
        chosen = codes.indices.unsqueeze(-1) == concepts
        maps = (codes.values.unsqueeze(-1) * chosen).sum(dim=1)
        return self.reduce(maps.unflatten(0, patches.shape[:3]))


class NeuronScore:
    """s(x) = peak max_uv A + mean mean_uv relu(A), A the map of one channel of the encoder's patch tokens: a neuron.

    Neurons of inner layers are those of an encoder that reads there (`Encoder.from_pretrained(layer=, hook=)`).

    Parameters
    ----------
    encoder
        Its patch tokens' channels are the neurons.
    neuron
        Number of the channel.
    sign
        1 for what excites the neuron, -1 for what inhibits it.
    peak, mean
        Weights of the map's maximum and of its rectified mean.

    Raises
    ------
    BlindspotError
        When called, if the encoder has no such neuron.
    """

    def __init__(self, encoder: Encoder, neuron: int, sign: int = 1, peak: float = 0.3, mean: float = 0.7):
        self.encoder, self.neuron, self.sign = encoder, int(neuron), sign
        self.peak, self.mean = peak, mean

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Scores of images in [0, 1]; differentiable."""
        patches = self.encoder(images).patches
        if not 0 <= self.neuron < patches.shape[-1]:
            raise BlindspotError(f"There is no neuron {self.neuron}: choose from 0 to {patches.shape[-1] - 1}.")
        return reduce_maps(self.sign * patches[..., self.neuron, None], self.peak, self.mean).squeeze(-1)


def reduce_maps(maps: Float[Tensor, "n h w c"], peak: float, mean: float) -> Float[Tensor, "n c"]:
    """Weighted sum of each map's maximum and its rectified mean (arXiv:2605.17504, eq. 213)."""
    return peak * maps.amax(dim=(1, 2)) + mean * maps.relu().mean(dim=(1, 2))
