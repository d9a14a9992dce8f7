"""Labels by a reader of images, scored by what the same reader sees in held-out images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.atlas.schema import DESCRIPTION_LENGTH, LABEL_LENGTH, REAL
from engine.blindspots.label_scores import balanced_accuracy, strong_from
from engine.readers.asking import LimitedReader
from engine.readers.base import Answer, Plan, Question, Reader, Status
from engine.readers.crops import masked_crop, whole
from engine.readers.labelling import GivenLabel, given_label, label_question, shown_question
from precompute.labelling.base import UNSCORED, ConceptLabel, RealImages

SHOWN = 6
"""Exemplars that a reader names a concept by."""
NEGATIVES = 3
"""Images beside them that do not show the concept."""
HELD_OUT = 8
"""Images with the concept, and as many without it, that its label is scored on."""
AT_ONCE = 8
"""Images of one question that is answered by a list."""
CHUNK = 64
"""Concepts whose pictures are in memory at once."""
PLANNED = 256
"""Concepts whose questions a plan counts."""
OVERLAP = 0.1
"""Share of a concept's codes that a moved mask may still keep of it."""
PLACEHOLDER = GivenLabel("a label of five words", "A description of the concept in one sentence of some length.", 0.5)
"""Stands for a label that is not known yet in what a plan counts."""


class HeldOut(NamedTuple):
    """What a concept's label is scored on; global image ids."""

    active: list[int]
    silent: list[int]


class ReaderLabels(NamedTuple):
    """What came of asking a reader."""

    labels: list[ConceptLabel]
    counts: dict[str, int]
    """Of all questions by `Status`."""
    missing: dict[int, str]
    """Concept to why it got no label."""
    tokens: tuple[int, int]
    """Of questions and answers that were paid for in this run."""


class Material:
    """The pictures of concepts that readers look at."""

    def __init__(self, real: RealImages, held_out: int) -> None:
        self._real, self._atlas, self._held_out = real, real.atlas, held_out
        encoder = real.atlas.info.encoder
        self._crop = float(encoder.get("crop_fraction", 0.875)) if encoder.get("resize") == "crop" else None

    def exemplars(self, concept: int) -> list[int]:
        """The images that a reader names a concept by, best first."""
        return self._atlas.exemplars(REAL, concept, SHOWN)["image"].tolist()

    def negatives(self, concept: int, shown: Sequence[int]) -> list[int]:
        """The images most like the best exemplar in which the concept is silent."""
        near = self._atlas.nearest_images(shown[0], REAL, 20 * NEGATIVES)["image"].tolist()
        silent = self._real.energies(concept) == 0
        first = self._atlas.info.image_range(REAL).start
        return [image for image in near if silent[image - first]][:NEGATIVES]

    def held_out(self, concept: int) -> HeldOut:
        """Images in which the concept is strong, over all strengths, and in which it is silent; none was shown.

        Those with the lowest energies are taken where too few are silent.
        """
        energies, first = self._real.energies(concept), self._atlas.info.image_range(REAL).start
        shown = self.exemplars(concept)
        used = np.array([*shown, *(self.negatives(concept, shown) if shown else ())], dtype=np.int64) - first
        free = np.setdiff1d(np.arange(len(energies)), used)
        strong = free[energies[free] >= strong_from(energies)]
        strong = strong[np.argsort(-energies[strong], kind="stable")]
        take = np.unique(np.linspace(0, len(strong) - 1, min(self._held_out, len(strong))).round().astype(int))
        weak = np.setdiff1d(free, strong)
        shuffled = np.random.default_rng(concept).permutation(weak)
        silent = shuffled[np.argsort(energies[shuffled] > 0, kind="stable")][: self._held_out]
        return HeldOut((strong[take] + first).tolist(), (silent + first).tolist())

    def crop(self, image: int, concept: int, heat: np.ndarray | None = None) -> bytes:
        """A masked crop of an image by the concept's codes in it, or by other ones."""
        codes = self._atlas.heatmap(image, concept) if heat is None else heat
        return masked_crop(self._atlas.image(image), codes, self._crop)

    def question(self, concept: int) -> Question | None:
        """The question for the concept's label; None if no image shows it."""
        shown = self.exemplars(concept)
        if not shown:
            return None
        negatives = [whole(self._atlas.image(image)) for image in self.negatives(concept, shown)]
        return label_question([self.crop(image, concept) for image in shown], negatives)

    def scoring(self, concept: int, given: GivenLabel) -> list[tuple[Question, list[bool]]]:
        """The questions that score a label, whole images first and masked crops then, each with the right answers."""
        held = self.held_out(concept)
        if not held.active or not held.silent:
            return []
        whole_ones = [(whole(self._atlas.image(image)), True) for image in held.active]
        whole_ones += [(whole(self._atlas.image(image)), False) for image in held.silent]
        crops = [(self.crop(image, concept), True) for image in held.active]
        crops += [(self._wrong_crop(concept, *two), False) for two in zip(held.active, held.silent, strict=False)]
        found = []
        for pictures, masked in ((whole_ones, False), (crops, True)):
            order = np.random.default_rng([concept, masked]).permutation(len(pictures))
            for start in range(0, len(order), AT_ONCE):
                some = [pictures[place] for place in order[start : start + AT_ONCE]]
                question = shown_question(given, [picture for picture, _ in some], masked=masked)
                found.append((question, [right for _, right in some]))
        return found

    def _wrong_crop(self, concept: int, active: int, silent: int) -> bytes:
        """The concept's mask moved away from it in the same image or, where it fills the image, on a silent one."""
        heat = self._atlas.heatmap(active, concept)
        moves = np.array([(down, right) for down in range(heat.shape[0]) for right in range(heat.shape[1])])
        kept = np.array([(heat * (np.roll(heat, move, (0, 1)) > 0)).sum() for move in moves])
        best = int(np.random.default_rng([concept, active]).permutation(len(moves))[0])
        away = np.flatnonzero(kept <= OVERLAP * heat.sum())
        if len(away):
            return self.crop(active, concept, np.roll(heat, moves[away[best % len(away)]], (0, 1)))
        return self.crop(silent, concept, heat)


def plan_labels(reader: LimitedReader, material: Material, concepts: Sequence[int], score: bool) -> Plan:
    """What labelling and scoring would take; of labels that are not known yet, the scoring is estimated.

    Of more than `PLANNED` concepts, as many are looked at and the counts are scaled up.
    """
    looked_at = concepts[:: -(-len(concepts) // PLANNED) or 1]
    scale = len(concepts) / max(len(looked_at), 1)
    plans = [Plan(0, 0, 0, 0, 0, None)]
    for some in _chunks(looked_at):
        questions = _questions(material, some)
        plans.append(reader.plan([*questions.values()]))
        if score:
            known = {concept: reader.known(question) for concept, question in questions.items()}
            given = {concept: (answer and _given(answer)) or PLACEHOLDER for concept, answer in known.items()}
            plans.append(reader.plan([one for pair in given.items() for one, _ in material.scoring(*pair)]))
    prices = [plan.price for plan in plans if plan.price is not None]
    calls, kept, lost = (round(scale * sum(counts)) for counts in zip(*(plan[:3] for plan in plans), strict=True))
    tokens_in, tokens_out = (round(scale * sum(counts)) for counts in zip(*(plan[3:5] for plan in plans), strict=True))
    return Plan(calls, kept, lost, tokens_in, tokens_out, scale * sum(prices) if prices else None)


def label_by_reader(
    reader: Reader,
    material: Material,
    concepts: Sequence[int],
    score: bool = True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ReaderLabels:
    """Ask a reader for labels and, of those it gives, whether held-out images show them.

    What it refuses, answers badly or does not answer is counted: a concept without an answer gets no label, a label is
    scored on the held-out images whose answers came.
    """
    found, missing, counts, tokens = list[ConceptLabel](), dict[int, str](), Counter[str](), [0, 0]

    def ask(questions: Sequence[Question]) -> list[Answer]:
        answers = reader.ask(questions)
        for answer in answers:
            counts[answer.status] += 1
            if not answer.cached:
                tokens[0] += answer.tokens_in
                tokens[1] += answer.tokens_out
        return answers

    done = 0
    for some in _chunks(concepts):
        report(done, len(concepts))
        questions = _questions(material, some)
        missing |= {concept: "No real image shows it." for concept in some if concept not in questions}
        given = {}
        for concept, answer in zip(questions, ask([*questions.values()]), strict=True):
            if (label := _given(answer)) is not None:
                given[concept] = label
            else:
                missing[concept] = f"{answer.status}: {answer.reason or 'the label is empty'}"
        scoring = {concept: material.scoring(concept, label) for concept, label in given.items()} if score else {}
        answers = iter(ask([question for questions_of in scoring.values() for question, _ in questions_of]))
        for concept, label in given.items():
            asked = scoring.get(concept, [])
            found.append(_labelled(reader.name, concept, label, asked, [next(answers) for _ in asked]))
        done += len(some)
    report(len(concepts), len(concepts))
    return ReaderLabels(found, {status: counts[status] for status in Status}, missing, (tokens[0], tokens[1]))


def _labelled(
    reader: str,
    concept: int,
    given: GivenLabel,
    asked: Sequence[tuple[Question, list[bool]]],
    answers: Sequence[Answer],
) -> ConceptLabel:
    """A label with its scores by detection and by fuzzing, over the images whose answers came."""
    by_protocol: dict[str, tuple[list[bool], list[bool]]] = {}
    for (question, right), answer in zip(asked, answers, strict=True):
        said, truth = by_protocol.setdefault(question.protocol, ([], []))
        if answer.value is not None:
            said += answer.value["shown"]
            truth += right
    scores = [balanced_accuracy(np.array(said, bool), np.array(truth, bool)) for said, truth in by_protocol.values()]
    detection, fuzzing = scores or (UNSCORED, UNSCORED)
    return ConceptLabel(concept, given.label, reader, detection, given.description, given.confidence, fuzzing.score)


def _given(answer: Answer) -> GivenLabel | None:
    return given_label(answer.value, LABEL_LENGTH, DESCRIPTION_LENGTH) if answer.value else None


def _questions(material: Material, concepts: Sequence[int]) -> Mapping[int, Question]:
    asked = {concept: material.question(concept) for concept in concepts}
    return {concept: question for concept, question in asked.items() if question is not None}


def _chunks(concepts: Sequence[int]) -> Iterator[Sequence[int]]:
    return (concepts[start : start + CHUNK] for start in range(0, len(concepts), CHUNK))
