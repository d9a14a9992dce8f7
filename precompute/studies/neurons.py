"""A concept against single neurons: is the dictionary's direction more selective than the channels it is made of?

Each is drawn until it scores the same share of what its own best real images score, so that none is shown at its best
and another at its worst.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError
from engine.samplers.base import OnStep
from engine.samplers.generation import Reference
from engine.samplers.metrics import PriorReference
from engine.samplers.scores import NeuronScore
from precompute.studies.subject import Listener, Reached, Subject, silence
from precompute.studies.survey import Survey

TINY = 1e-12


class Choice(NamedTuple):
    """A neuron to compare the concept with."""

    neuron: int
    sign: int
    """1 for what excites it, -1 for what inhibits it: the direction in which the concept grows with it."""
    chosen_by: str
    """`atom`, `map`, or both."""


class Unit(NamedTuple):
    """The concept, or a neuron: how selective it is and what its drawing is like."""

    name: str
    """`concept 12`, or `neuron 3+` for what excites the neuron and `neuron 3-` for what inhibits it."""
    chosen_by: str
    """See `Choice`; empty for the concept."""
    atom: float
    """Entry of the concept's atom, times the sign; NaN for the concept, and where atoms are no such directions."""
    map_correlation: float
    """Pearson's r with the concept's map over the patches of all real images, times the sign."""
    score_correlation: float
    """Pearson's r with the concept's score over the real images."""
    selectivity: float
    """How far the best real images stand out: their mean score less that of all, over the standard deviation."""
    share: float
    """Mean score of the drawing, of that of the own best real images."""
    share_error: float
    """Its standard error."""
    concept_share: float
    """The concept's mean score on the drawing, of that of the concept's best real images."""
    diversity: float
    slope: float
    kid: float
    frechet: float
    """As in `engine.samplers.metrics.Quality`."""
    strength: float
    score: float
    """Mean score of the drawing, in the unit's own units."""
    note: str
    """Why the share is not the concept's."""


class Comparison(NamedTuple):
    """The concept first, then the neurons."""

    rows: list[Unit]
    images: list[Tensor | None]
    """[n, 3, H, W] of each row, the best first; None where nothing could be drawn."""
    references: list[tuple[Reference, ...]]
    """The best real images of each row."""


def compare_neurons(
    subject: Subject,
    survey: Survey,
    yardstick: PriorReference,
    neurons: int,
    listener: Listener = silence,
) -> Comparison:
    """Draw a concept at the level of its best real images, and the neurons nearest to it at the same share of theirs.

    Parameters
    ----------
    subject
        The concept.
    survey
        Of the same concept.
    yardstick
        What the drawings are measured by.
    neurons
        How many to choose each way, see `choose_neurons`.
    listener
        Given the name of a unit, gives what hears of its steps.

    Raises
    ------
    BlindspotError
        If the number of neurons is not positive, or nothing can be drawn.
    Cancelled
        If the listener said so.
    """
    look = _Look(subject, survey, yardstick, _atom(subject, survey))
    chosen = choose_neurons(look.atom, survey.correlation, neurons)
    name = f"concept {subject.order.concept}"
    reached = subject.reach(subject.best, on_step=listener(name))
    found = Comparison([look.unit(name, None, subject, reached)], [_sorted(reached)], [subject.references])
    for choice in chosen:
        name = f"neuron {choice.neuron}{'+' if choice.sign > 0 else '-'}"
        references = survey.references(survey.scores(choice.neuron, choice.sign))
        score = NeuronScore(subject.score.encoder, choice.neuron, choice.sign)
        own = replace(subject, score=score, references=references, drawn={})
        reached = _reach(own, found.rows[0].share, listener(name))
        found.rows.append(look.unit(name, choice, own, reached))
        found.images.append(_sorted(reached))
        found.references.append(references)
    return found


def choose_neurons(atom: np.ndarray | None, correlation: np.ndarray, count: int) -> list[Choice]:
    """The neurons with the largest entries of an atom [d], and those of largest correlation [d], in absolute value.

    Parameters
    ----------
    atom
        None where atoms are not directions of the patch tokens.
    correlation
        Pearson's r with the concept's map.
    count
        How many by each; a neuron that both name appears once.

    Raises
    ------
    BlindspotError
        If the count is not positive.
    """
    if count < 1:
        raise BlindspotError(f"{count} neurons were asked for: ask for at least 1.")
    ways = {"map": correlation} if atom is None else {"atom": atom, "map": correlation}
    chosen: dict[tuple[int, int], list[str]] = {}
    for way, values in ways.items():
        for neuron in np.argsort(-np.abs(values), kind="stable")[:count].tolist():
            chosen.setdefault((neuron, 1 if values[neuron] >= 0 else -1), []).append(way)
    return [Choice(neuron, sign, ", ".join(names)) for (neuron, sign), names in chosen.items()]


def _atom(subject: Subject, survey: Survey) -> np.ndarray | None:
    """The concept's atom [d]; None if it is no direction of the encoder's tokens, as a transcoder's is not."""
    dictionary = subject.score.dictionary
    if isinstance(dictionary, Transcoder) or dictionary.out_dim != len(survey.correlation):
        return None
    return dictionary.atoms()[subject.order.concept].detach().double().cpu().numpy()


def _reach(own: Subject, share: float, on_step: OnStep | None) -> Reached | str:
    """Draw a neuron at a share of its best, or say why nothing can be drawn."""
    if own.best <= 0:
        return "No real image excites this neuron."
    try:
        return own.reach(share * own.best, on_step=on_step)
    except BlindspotError as error:
        return str(error)


def _sorted(reached: Reached | str) -> Tensor | None:
    """Drawn images, the best first."""
    if isinstance(reached, str):
        return None
    samples = reached.drawn.samples
    return samples.images[samples.scores.argsort(descending=True)]


class _Look(NamedTuple):
    """What the concept and the neurons are measured by."""

    concept: Subject
    survey: Survey
    yardstick: PriorReference
    atom: np.ndarray | None

    def unit(self, name: str, choice: Choice | None, own: Subject, reached: Reached | str) -> Unit:
        """The row of the concept (no choice) or of a neuron."""
        survey, alike = self.survey, (math.nan, 1.0)
        scores = survey.pool.scores
        if choice is not None:
            scores = survey.scores(choice.neuron, choice.sign)
            entry = math.nan if self.atom is None else choice.sign * float(self.atom[choice.neuron])
            alike = (entry, choice.sign * float(survey.correlation[choice.neuron]))
        selectivity = (own.best - scores.mean()) / max(scores.std(), TINY)
        real = (*alike, _pearson(scores, survey.pool.scores), float(selectivity))
        by = choice.chosen_by if choice else ""
        if isinstance(reached, str):
            return Unit(name, by, *real, *[math.nan] * 9, note=reached)
        drawn = reached.drawn
        with torch.no_grad():
            concept_score = float(self.concept.score(drawn.samples.images).mean())
        share = (drawn.mean / own.best, drawn.error / own.best, concept_score / self.concept.best)
        quality = self.yardstick.measure(drawn.samples.images)
        return Unit(name, by, *real, *share, *quality, drawn.strength, drawn.mean, note=reached.note)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r; 0 where a side is constant."""
    spread = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread > 0 else 0.0
