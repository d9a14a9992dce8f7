"""Soft prompts, after DiffExplainer (Pennisi et al. 2025): token embeddings learned for a score.

A few token embeddings behind a fixed prefix go through the text encoder and the network draws from them in a few steps;
the score's gradient comes back through the last of these steps. The images are then drawn with the learned prompt as
with any other. They are as natural as the pipeline's images are, and can show only what its text encoder can express
(arXiv:2605.17504, Theorem F.7).
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.latent import LatentPrior
from engine.samplers.base import (
    OnStep,
    Samples,
    Score,
    StepEvent,
    announce,
    require_count,
    require_finite,
    sample_generators,
)
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.guidance import checkpointed

LEARNING_SEED = 1 << 40
"""Added to the seed for the noise that a prompt is learned on, which no drawing has."""


@dataclass(frozen=True)
class SoftPrompt:
    """Images drawn with a prompt that was learned for the score.

    The prompt depends on score and seed alone, so that image i is the same in any batch.

    Raises
    ------
    BlindspotError
        If the pipeline has not one text encoder, or a setting makes no sense.
    """

    pipeline: Any
    """A `StableDiffusionPipeline`, frozen."""
    steps: int = 40
    """Reverse steps of the drawing."""
    strength: float = 3.0
    """Classifier-free guidance scale of the drawing: 0 is the empty prompt's prior, 1 the learned prompt's images, more
    exaggerates the difference."""
    iterations: int = 40
    """Learning steps."""
    rate: float = 0.1
    """Adam's step size, in units of the deviation of the vocabulary's embeddings."""
    tokens: int = 5
    """Learned tokens behind the prefix."""
    prefix: str = "photo of"
    """What the prompt begins with (arXiv:2605.17504, appendix J.3.2)."""
    images: int = 2
    """Images drawn in each learning step."""
    path: int = 8
    """Reverse steps of such an image."""
    through: int = 2
    """The last ones, that the gradient goes through."""
    score_cap: float | None = None
    """An image whose score exceeds this is ignored at that step."""
    learned: Tensor | None = None
    """[1, length, d], the context of an earlier `learn`, for this score."""

    def __post_init__(self) -> None:
        if getattr(self.pipeline, "text_encoder_2", None) is not None or not hasattr(self.pipeline, "text_encoder"):
            raise BlindspotError(
                f"Soft prompts need a pipeline with one text encoder, not a {type(self.pipeline).__name__}: "
                "name a StableDiffusionPipeline."
            )
        if not 1 <= self.through <= self.path or min(self.iterations, self.images, self.tokens) < 1:
            raise BlindspotError(
                f"A soft prompt of {self.tokens} tokens learned in {self.iterations} steps of {self.images} images "
                f"through {self.through} of {self.path} levels makes no sense: all must be at least 1."
            )
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Learn the prompt, unless it is `learned`, and draw n images with it.

        Arguments and errors as in `Sampler.sample`. While learning, previews show the images that are learned from.
        """
        require_count(n)
        context, total, trace = self.learned, self.steps, []
        if context is None:
            total += self.iterations
            shown = torch.arange(n) % self.images

            def report(event: StepEvent) -> None:
                scores = event.scores[shown]
                trace.append(scores)
                announce(on_step, StepEvent(event.step, total, scores, event.images[shown]))

            context = self.learn(score, seed, report)

        def shift(event: StepEvent) -> None:
            announce(on_step, replace(event, step=event.step + total - self.steps, steps=total))

        prior = with_prompt(LatentPrior(self.pipeline), context, self.strength)
        drawn = EnergyDPS(prior, self.steps, strength=0.0).sample(score, n, seed, shift, first)
        return replace(drawn, trace=torch.cat([torch.stack(trace), drawn.trace]) if trace else drawn.trace)

    def prepare(self, score: Score, seed: int = 0, on_step: OnStep | None = None) -> SoftPrompt:
        """Learn the prompt once, for any number of drawings."""
        return self if self.learned is not None else replace(self, learned=self.learn(score, seed, on_step))

    def learn(self, score: Score, seed: int = 0, on_step: OnStep | None = None) -> Tensor:
        """Learn the context [1, length, d] of a prompt whose images have a high score; errors as in `sample`."""
        generators = sample_generators(LEARNING_SEED + seed, self.images)
        tokens = SoftTokens(self.pipeline, self.prefix, self.tokens)
        soft = tokens.random(generators[0])
        prior = LatentPrior(self.pipeline)
        optimiser = torch.optim.Adam([soft], self.rate * tokens.deviation, maximize=True)
        for step in range(1, self.iterations + 1):
            variable = soft.detach().requires_grad_()
            images = self._draw(with_prompt(prior, tokens.context(variable), 1.0), generators)
            scores = score(images).float()
            pushed = scores if self.score_cap is None else scores * (scores.detach() <= self.score_cap)
            (soft.grad,) = torch.autograd.grad(pushed.mean(), variable)
            require_finite(soft.grad[None], scores.detach().mean()[None], f"at step {step}", "lower the rate")
            optimiser.step()
            images, scores = images.detach(), scores.detach()
            announce(on_step, StepEvent(step, self.iterations, scores, images))
        with torch.no_grad():
            return tokens.context(soft)

    def _draw(self, prior: LatentPrior, generators: list[torch.Generator]) -> Tensor:
        """Images [len(generators), 3, H, W], with a graph through the last levels."""
        levels = [*prior.timesteps(self.path).tolist(), -1]
        state = prior.noise(generators)
        with checkpointed(prior, True):
            for index, (t, t_prev) in enumerate(itertools.pairwise(levels)):
                with torch.set_grad_enabled(index >= self.path - self.through):
                    state = prior.step(prior.denoise(state, t), t, t_prev, state, generators)
            return prior.decode(state)


class SoftTokens:
    """A prompt with soft tokens, and the text encoder that reads it.

    Parameters
    ----------
    pipeline
        Its tokenizer and text encoder are used.
    prefix, tokens
        What the prompt begins with, cut where it would leave no room, and how many soft tokens follow.
    """

    def __init__(self, pipeline: Any, prefix: str, tokens: int):
        tokenizer, self.encoder = pipeline.tokenizer, pipeline.text_encoder.requires_grad_(False).eval()
        room = tokenizer.model_max_length - tokens - 2
        if room < 0:
            raise BlindspotError(
                f"{tokens} soft tokens do not fit into a prompt of {tokenizer.model_max_length}: ask for fewer."
            )
        head = tokenizer(prefix, add_special_tokens=False, padding=False).input_ids[:room]
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        ids = [start, *head, *[end] * tokens, end]
        ids += [padding] * (tokenizer.model_max_length - len(ids))
        self.places = slice(1 + len(head), 1 + len(head) + tokens)
        self.ids = torch.tensor([ids], device=self.encoder.device)
        self.table = self.encoder.get_input_embeddings()
        self.deviation = float(self.table.weight.std())

    def random(self, generator: torch.Generator) -> Tensor:
        """Embeddings [tokens, d] of words drawn from the vocabulary."""
        count = self.places.stop - self.places.start
        chosen = torch.randint(len(self.table.weight), (count,), generator=generator)
        return self.table.weight[chosen.to(self.table.weight.device)].detach().clone()

    def context(self, soft: Tensor) -> Tensor:
        """What the network reads [1, length, d] when the soft tokens have these embeddings [tokens, d]."""

        def insert(_: Any, __: Any, embedded: Tensor) -> Tensor:
            before, after = embedded[:, : self.places.start], embedded[:, self.places.stop :]
            return torch.cat([before, soft[None].to(embedded.dtype), after], dim=1)

        handle = self.table.register_forward_hook(insert)
        try:
            return self.encoder(self.ids)[0]
        finally:
            handle.remove()


def with_prompt(prior: LatentPrior, context: Tensor, guidance: float) -> LatentPrior:
    """An unconditional prior as it draws with a prompt's context [1, length, d] and a guidance scale."""
    other = copy.copy(prior)
    other.guidance = guidance
    other.context = context if guidance == 1 else torch.cat([prior.context, context])
    return other
