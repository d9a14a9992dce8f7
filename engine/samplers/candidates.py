"""Candidate selection: a sample starts as many states of the prior, and the most promising one is kept.

What an image is about is settled early, while the score of a blurred prediction has hardly a gradient: no push turns a
lawn into a brick wall. So a sample may start as many candidates. At a few noise levels their predicted clean images are
scored, and half of them are kept by systematic resampling, with the weights of twisted sequential Monte Carlo
(arXiv:2306.17775): the prior's own steps as proposal and the twist exp(beta_t s), beta_t = beta abar_t^tempering. Each
selection draws towards p exp(beta_t s); as the last ones are between few, the law stays between the prior and that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior, Prediction
from engine.samplers.base import Score, uniforms
from engine.samplers.execution import MicroBatches
from engine.samplers.guidance import GuidedDenoiser, map_prediction


@dataclass(frozen=True)
class CandidateSelection:
    """How many candidates a sample starts as, and how they are selected.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    beta: float
    """Inverse temperature of the selection, in units of one over the score's; 0 selects at random."""
    candidates: int = 32
    """Candidates of a sample at the start, halved until one is left; 1 selects nothing."""
    window: tuple[float, float] = (0.2, 0.5)
    """Share of the way, from noise (0) to image (1), at which candidates are first and last halved."""
    tempering: float = 0.5
    """How late the selection becomes sharp, as in `EnergySMC.tempering`."""
    approach: int | None = None
    """Steps that lead to the first halving, and from then on one from each halving to the next: candidates, most of
    which are given up, need no finer ones. None: the sampler's own steps."""
    batch: int = 8
    """Candidates of a sample that are denoised in one go: fewer are slower and need less memory."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.beta) or self.candidates < 1 or self.tempering < 0 or self.batch < 1:
            raise BlindspotError(
                f"Selecting among {self.candidates} candidates, {self.batch} at once, with beta {self.beta:g} and "
                f"tempering {self.tempering:g} makes no sense: at least 1 candidate, a finite beta and a tempering of "
                "at least 0."
            )
        if self.approach is not None and self.approach < 1:
            raise BlindspotError(f"Candidates reach their first selection in 1 or more steps, not {self.approach}.")
        if not 0 < self.window[0] <= self.window[1] < 1:
            raise BlindspotError(f"Candidates are halved between 0 and 1 of the way, not in {self.window}.")

    def halvings(self, steps: int) -> dict[int, int]:
        """Step to the number of candidates left from it on, ending with 1 before the last guided step."""
        rounds = math.ceil(math.log2(self.candidates))
        first, last = (max(1, round(share * steps)) for share in self.window)
        places = torch.linspace(first, max(first, last), rounds).round().int().tolist()
        latest = max(min(1, steps - 1), steps - 2)
        return {min(place, latest): math.ceil(self.candidates / 2 ** (i + 1)) for i, place in enumerate(places)}

    def places(self, steps: int) -> list[int]:
        """The steps that candidates go, from the start to the last halving."""
        halvings = list(self.halvings(steps))
        if self.approach is None or not halvings:
            return list(range(max(halvings, default=0) + 1))
        first = torch.linspace(0, halvings[0], min(self.approach, halvings[0]) + 1).round().int().tolist()
        return sorted({*first, *halvings})


class CandidateStates:
    """The candidates of n samples, on their way to one each; `state` [n * count, *shape] holds them.

    Parameters
    ----------
    prior, score
        Whose states they are, and what they are selected by.
    selection
        The settings.
    generators
        One for each sample; all its random numbers come from it.
    bf16
        Denoise in bfloat16; scores are in full precision.
    together
        Samples that are computed in one go, None for all; see `EnergyDPS.together`.
    """

    def __init__(
        self,
        prior: DiffusionPrior,
        score: Score,
        selection: CandidateSelection,
        generators: list[torch.Generator],
        bf16: bool = False,
        together: int | None = 1,
    ):
        self.prior, self.selection, self.generators = prior, selection, generators
        self.count = selection.candidates
        self.together = together or len(generators)
        self.batches = MicroBatches(self.together * self.count, self.together * selection.batch)
        self.denoiser = GuidedDenoiser(prior, score, bf16=bf16, batches=self.batches)
        self.state = prior.noise(self._generator_of_each())
        self.log_twist = self.state.new_zeros(len(generators), self.count)

    @torch.no_grad()
    def run(self, levels: list[int], on_prediction: Callable[[int, Tensor], None]) -> int:
        """Denoise and select until one state of each sample is left; returns the index of its noise level.

        Parameters
        ----------
        levels
            Noise levels from the start to the clean image, -1.
        on_prediction
            Called at each step with the index it leads to and a predicted clean state for each sample [n, *shape].
        """
        steps = len(levels) - 1
        halvings, places = self.selection.halvings(steps), self.selection.places(steps)
        index = 0
        for index, later in zip(places, [*places[1:], steps], strict=True):
            if self.count == 1:
                break
            predicted = self.denoiser.denoise(self.state, levels[index])
            if index in halvings:
                predicted = self._select(predicted, levels[index], halvings[index])
                if self.count == 1:
                    break
            generators = self._generator_of_each()
            self.state = self.prior.step(predicted, levels[index], levels[later], self.state, generators)
            for step in range(index, later):
                on_prediction(step + 1, predicted.x0[:: self.count])
        return index

    def _select(self, predicted: Prediction, t: int, count: int) -> Prediction:
        """Keep `count` candidates of each sample, drawn by their weights; returns the predictions for those."""
        scores = self.denoiser.decode(predicted.x0)[1].view(self.log_twist.shape)
        finite = scores.isfinite().all(dim=1)
        if not finite.all():
            raise BlindspotError(
                f"The score of sample {int((~finite).nonzero()[0]) + 1} is no finite number at noise level {t}, where "
                "its candidates are selected: check the score and the prior."
            )
        log_twist = self.selection.beta * self.prior.schedule.signal(t) ** self.selection.tempering * scores
        offsets = uniforms(self.generators).to(log_twist.device)
        kept = systematic_resample(log_twist - self.log_twist, offsets, count)
        rows = (kept + self.count * torch.arange(len(kept), device=kept.device)[:, None]).flatten()
        self.state, self.log_twist, self.count = self.state[rows], log_twist.gather(1, kept), count
        self.batches.group = self.together * count
        return map_prediction(lambda part: part[rows], predicted)

    def _generator_of_each(self) -> list[torch.Generator]:
        return [generator for generator in self.generators for _ in range(self.count)]


def effective_size(log_weights: Float[Tensor, "n particles"]) -> Float[Tensor, " n"]:
    """(sum w)^2 / sum w^2 of each row: between 1 and the number of particles."""
    return torch.exp(2 * log_weights.logsumexp(dim=1) - (2 * log_weights).logsumexp(dim=1))


def systematic_resample(
    log_weights: Float[Tensor, "n particles"], offsets: Float[Tensor, " n"], count: int | None = None
) -> Int[Tensor, "n count"]:
    """Systematic resampling (Kitagawa 1996) of each row: weight w of 1 gets floor or ceil of w * count copies.

    Parameters
    ----------
    log_weights
        Not necessarily normalised.
    offsets
        Uniform in [0, 1): the one random number of each row.
    count
        New particles of a row; as many as before when None.

    Returns
    -------
    The ancestor of each new particle, ascending; all have equal weight.
    """
    particles = log_weights.shape[1]
    count = count or particles
    ends = log_weights.double().softmax(dim=1).cumsum(dim=1)
    ticks = (torch.arange(count, device=ends.device) + offsets.double()[:, None]) / count
    return torch.searchsorted(ends, ticks, right=True).clamp_max(particles - 1)


def choose(log_weights: Float[Tensor, "n particles"], offsets: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Draw one particle of each row by its weight, with uniform numbers `offsets`."""
    return systematic_resample(log_weights, offsets, 1).squeeze(1)
