"""A concept against single neurons: is the dictionary's direction more selective than the channels it is made of?

Each is drawn until it scores the same share of what its own best real images score, so that none is shown at its best
and another at its worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from engine.atlas import Atlas
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError
from engine.figures.images import SIDE, Block, Row, image_grid
from engine.figures.samplers import neuron_bars
from engine.samplers.generation import REFERENCES, Reference
from engine.samplers.metrics import PriorReference
from engine.samplers.models import real_images, thumbnails
from engine.samplers.records import to_pil
from engine.samplers.retrieval import BATCH, Pool
from engine.samplers.scores import ConceptScore, NeuronScore, reduce_maps
from precompute.studies.base import (
    CalibratedTrial,
    ConceptSubject,
    DrawnUnit,
    Progress,
    Report,
    Study,
    StudyInputs,
    StudySubject,
    concept_subject,
    image_block,
    silent,
)

TINY = 1e-12
SIGNS = (1, -1)


@dataclass(frozen=True)
class NeuronSurvey:
    """Scores of the real images by a concept and by all channels of the patch tokens."""

    pool: Pool
    """The images and the concept's scores."""
    neurons: Float[np.ndarray, "2 n d"]
    """Score of each image by each neuron, for what excites it and for what inhibits it."""
    correlation: Float[np.ndarray, " d"]
    """Pearson's r of the concept's pre-activation and each neuron over all patches; 0 for a constant neuron."""

    def scores(self, neuron: int, sign: int) -> np.ndarray:
        """Scores [n] by one neuron, as `NeuronScore` gives them."""
        return self.neurons[SIGNS.index(sign), :, neuron].astype(np.float64)

    def references(self, scores: np.ndarray) -> tuple[Reference, ...]:
        """The best images by scores [n], best first."""
        best = np.argsort(-scores, kind="stable")[:REFERENCES]
        return tuple(Reference(int(self.pool.images[place]), float(scores[place])) for place in best)


class Choice(NamedTuple):
    """A neuron to compare the concept with."""

    neuron: int
    sign: int
    """1 for what excites it, -1 for what inhibits it: the direction in which the concept grows with it."""
    chosen_by: str
    """`atom`, `map`, or both."""


class UnitRow(NamedTuple):
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
    """As in `metrics.Quality`."""
    strength: float
    score: float
    """Mean score of the drawing, in the unit's own units."""
    note: str
    """Why the share is not the concept's."""


class NeuronComparison(NamedTuple):
    """The concept first, then the neurons."""

    rows: list[UnitRow]
    images: list[Tensor | None]
    """[n, 3, H, W] of each row, the best first; None where nothing could be drawn."""
    references: list[tuple[Reference, ...]]
    """The best real images of each row."""


@torch.no_grad()
def survey_neurons(
    atlas: Atlas, score: ConceptScore, device: str = "cpu", report: Report = lambda done, total: None
) -> NeuronSurvey:
    """Score every real image of an atlas by a concept and by all neurons.

    Raises
    ------
    BlindspotError
        If the atlas holds no real images.
    """
    images, encoder = real_images(atlas), score.encoder
    concept, neurons, correlation = [], [], _RunningCorrelation()
    concepts = torch.tensor(score.concepts, device=device)
    for start in range(0, len(images), BATCH):
        report(start, len(images))
        patches = encoder(thumbnails(atlas, images[start : start + BATCH], encoder.spec).to(device)).patches
        maps = score.dictionary.preactivate(patches.flatten(0, 2), concepts).unflatten(0, patches.shape[:3])
        concept.append(score.reduce(maps).double().cpu())
        neurons.append(
            torch.stack([reduce_maps(sign * patches, score.peak, score.mean) for sign in SIGNS]).float().cpu()
        )
        correlation.add(patches.flatten(0, 2), maps.flatten())
    pool = Pool(images, torch.cat(concept).numpy())
    return NeuronSurvey(pool, torch.cat(neurons, dim=1).numpy(), correlation.value())


class _RunningCorrelation:
    """Pearson's r of many columns with one, in double precision, from batches of rows."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, columns: Float[Tensor, "n d"], one: Float[Tensor, " n"]) -> None:
        x, y = columns.double(), one.double()[:, None]
        if not self.count:
            self.x0, self.y0, self.sums = x.mean(dim=0), y.mean(), torch.zeros(5, x.shape[1]).to(x)
        x, y = x - self.x0, y - self.y0  # near zero mean, so that nothing cancels
        self.sums += torch.stack(
            [x.sum(dim=0), x.square().sum(dim=0), (x * y).sum(dim=0), y.sum().expand(x.shape[1]),
             y.square().sum().expand(x.shape[1])]
        )  # fmt: skip
        self.count += len(x)

    def value(self) -> np.ndarray:
        x, xx, xy, y, yy = (self.sums / self.count).cpu().numpy()
        spread = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
        return np.divide(xy - x * y, spread, out=np.zeros_like(xy), where=spread > 0)


def compare_neurons(
    subject: ConceptSubject,
    survey: NeuronSurvey,
    reference: PriorReference,
    neurons: int,
    progress: Progress = silent,
) -> NeuronComparison:
    """Draw a concept at the level of its best real images, and the neurons nearest to it at the same share of theirs.

    Parameters
    ----------
    subject
        The concept.
    survey
        Of the same concept.
    reference
        What the drawings are compared with.
    neurons
        How many to choose each way, see `choose_neurons`.
    progress
        Given the name of a unit, returns what is called after its steps.

    Raises
    ------
    BlindspotError
        If the number of neurons is not positive, or nothing can be drawn.
    Cancelled
        If `progress` cancelled.
    """
    dictionary = subject.score.dictionary
    atom = None  # the decoder of a dictionary is a direction of the tokens it reads; a transcoder's is not
    if not isinstance(dictionary, Transcoder) and dictionary.out_dim == len(survey.correlation):
        atom = dictionary.atoms()[subject.request.concept].detach().double().cpu().numpy()
    found = NeuronComparison([], [], [])

    def add(name: str, choice: Choice | None, unit: StudySubject, reached: CalibratedTrial | str) -> None:
        scores, entry, correlation = survey.pool.scores, math.nan, 1.0
        if choice is not None:
            scores = survey.scores(choice.neuron, choice.sign)
            entry = math.nan if atom is None else choice.sign * float(atom[choice.neuron])
            correlation = choice.sign * float(survey.correlation[choice.neuron])
        selectivity = float((unit.best - scores.mean()) / max(scores.std(), TINY))
        row: list[Any] = [name, choice.chosen_by if choice else "", entry, correlation]
        row += [_pearson(scores, survey.pool.scores), selectivity]
        if isinstance(reached, str):
            row, images = [*row, *[math.nan] * 9, reached], None
        else:
            trial = reached.trial
            images = trial.samples.images[trial.samples.scores.argsort(descending=True)]
            with torch.no_grad():
                concept_score = float(subject.score(trial.samples.images).mean())
            row += [trial.mean / unit.best, trial.error / unit.best, concept_score / subject.best,
                    *reference.measure(trial.samples.images), trial.strength, trial.mean, reached.note]  # fmt: skip
        found.rows.append(UnitRow._make(row))
        found.images.append(images)
        found.references.append(unit.references)

    chosen = choose_neurons(atom, survey.correlation, neurons)
    name = f"concept {subject.request.concept}"
    add(name, None, subject, subject.reach(subject.best, on_step=progress(name)))
    for choice in chosen:
        name = f"neuron {choice.neuron}{'+' if choice.sign > 0 else '-'}"
        score = NeuronScore(subject.score.encoder, choice.neuron, choice.sign)
        references = survey.references(survey.scores(choice.neuron, choice.sign))
        unit, on_step = StudySubject(subject.models, subject.request, score, references), progress(name)
        reached: CalibratedTrial | str = "No real image excites this neuron."
        if unit.best > 0:
            try:
                reached = unit.reach(found.rows[0].share * unit.best, on_step=on_step)
            except BlindspotError as error:
                reached = str(error)
        add(name, choice, unit, reached)
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


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r; 0 where a side is constant."""
    spread = first.std() * second.std()
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread > 0 else 0.0


def neurons_study(inputs: StudyInputs, neurons: int) -> Study:
    """The study `neurons`; errors as in `compare_neurons` and `concept_subject`."""
    atlas, subject = inputs.atlas, concept_subject(inputs.atlas, inputs.request, *inputs.placement)
    survey = survey_neurons(atlas, subject.score, subject.models.device, inputs.report("real images", "images"))
    found = compare_neurons(subject, survey, inputs.reference(subject), neurons, inputs.progress)
    table = pd.DataFrame(found.rows)
    aims = [1.0] + [found.rows[0].share] * (len(found.rows) - 1)
    drawn, real = [], []
    for row, images, references, aim in zip(*found, aims, strict=True):
        short = f"\nout of reach: {aim:.0%}" if row.note else ""
        drawn.append(image_block(images, f"{row.share:.0%} of its best real images{short}"))
        real.append(Block([atlas.image(best.image) for best in references], f"selectivity {row.selectivity:.1f} sd"))
    columns = [row.name + (f" (by {row.chosen_by})" if row.chosen_by else "") for row in found.rows]
    rows = [Row("drawn, the best first", drawn), Row("best real images", real)]
    figure = neuron_bars(table, concept=inputs.name, subtitle=inputs.subtitle)
    grid = image_grid(f"{inputs.name} against single neurons", columns, rows)
    units = [
        DrawnUnit(
            str(inputs.request.concept) if place == 0 else row.name, "neuron" if place else "concept",
            inputs.request.method, to_pil(images[: SIDE * SIDE]),
        )
        for place, (row, images) in enumerate(zip(found.rows, found.images, strict=True))
        if images is not None
    ]  # fmt: skip
    return Study("neurons", atlas, inputs.settings(subject, neurons=neurons), {"table": table}, figure, grid, units)
