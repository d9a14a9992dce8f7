"""A stress test: ask models for concepts, see which images show them, and say which blindspots are true.

"Conceptual Blindspots in Generative Image Models", appendix G.2; the rule of the verdict is
`engine.blindspots.elicitation`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from engine.atlas.reader import Atlas
from engine.atlas.schema import REAL, TABLES
from engine.blindspots.elicitation import (
    LEAST_IMAGES,
    LINE,
    Asked,
    Level,
    Rate,
    calibrate,
    clustered_rate,
    find,
    simple_rate,
    verdicts,
)
from engine.errors import BlindspotError
from engine.figures.images import contact_sheet, strip
from engine.pipelines.spec import PipelineSpec
from engine.samplers.models import ModelBundle
from engine.samplers.recognition import concept_label, plain_label
from engine.stress.images import AskedImage, ask, images_folder
from engine.stress.prompts import PromptSet, names, real_captions
from engine.vision.preprocess import to_tensor

IN_STRIP = 8
"""Images that the atlas keeps of a concept in a model, the best ones."""
ON_SHEET = 100
"""Images on a contact sheet."""
JUDGED_AT_ONCE = 64

Report = Callable[[int, int, "list[Image.Image]"], None]
"""Called with the images done, all images, and new ones; may raise to cancel."""


@dataclass(frozen=True)
class StressRequest:
    """How a test asks.

    Raises
    ------
    BlindspotError
        For what makes no sense.
    """

    per_prompt: int = 5
    """Images of each prompt."""
    seed: int = 0
    steps: int | None = None
    """Steps of every pipeline; None for those that drew the atlas."""
    against: str | None = None
    """What models are compared with: a model or ``real``; None chooses (`engine.blindspots.elicitation.find`)."""

    def __post_init__(self) -> None:
        if not 1 <= self.per_prompt <= 100:
            raise BlindspotError(f"{self.per_prompt} images of a prompt make no sense: choose 1 to 100.")
        if self.seed < 0 or not (self.steps is None or 1 <= self.steps <= 1000):
            raise BlindspotError("Choose a seed of 0 or more and 1 to 1000 steps.")


class RankedImage(NamedTuple):
    """One image of a concept in a model."""

    image: AskedImage
    energy: float
    shown: bool
    """Whether the energy reaches the level."""
    recognised: bool | None
    """Whether the atlas's judge sees the concept; None if it was not asked."""


@dataclass
class StressResult:
    """What a test found."""

    rows: pd.DataFrame
    """Table `stress` of the concepts of this test."""
    ranked: dict[tuple[int, str], list[RankedImage]]
    """By concept and model, the best image first."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Concept to why it was not tested."""
    seconds: float = 0.0

    def strip(self, concept: int, model: str) -> Image.Image:
        """The best images of a concept in a model side by side."""
        return strip([one.image.picture() for one in self.ranked[concept, model][:IN_STRIP]])

    def sheet(self, concept: int, model: str) -> Image.Image:
        """The contact sheet of a concept in a model, the best image first."""
        row = self.rows[(self.rows["concept"] == concept) & (self.rows["model"] == model)].iloc[0]
        best = self.ranked[concept, model][:ON_SHEET]
        level = max(float(row["level"]), 1e-9)
        captions = [f"{one.energy / level:.2f}" + (" +" if one.recognised else "") for one in best]
        title = (
            f"{row['word']} (concept {concept}) by {model}: {row['verdict']}. {row['shown']} of {row['images']} images "
            "reach the level of real images."
        )
        how = "Below each image: its energy over the level, with a bar where it reaches it"
        how += "; + where the judge sees it." if row["judged"] else "."
        return contact_sheet(title, how, [one.image.picture() for one in best], captions, [one.shown for one in best])


def run_stress_test(
    atlas: Atlas,
    pipelines: Mapping[str, PipelineSpec],
    sets: Sequence[PromptSet],
    work: Path,
    request: StressRequest | None = None,
    report: Report = lambda done, total, images: None,
    device: str | None = None,
) -> StressResult:
    """Ask every model for every concept, and decide.

    Parameters
    ----------
    atlas
        With real images and captions.
    pipelines
        By model.
    sets
        What to ask, one for each concept; concepts of one word share their images.
    work
        Folder of the images; those of an interrupted run are kept.
    device
        See `engine.devices.drawing_placement`.

    Raises
    ------
    BlindspotError
        If no concept can be tested, or a pipeline cannot draw.
    """
    began, request = time.perf_counter(), request or StressRequest()
    if request.against not in (None, REAL) and request.against not in pipelines:
        raise BlindspotError(
            f"There is no {request.against!r} to compare with: choose {', '.join((REAL, *pipelines))}."
        )
    if not pipelines:
        raise BlindspotError("No model is named whose images can be drawn: give --recipe RECIPE.")
    models = ModelBundle(atlas, device)
    levels, skipped = dict[int, Level](), dict[int, str]()
    for one in sets:
        try:
            levels[one.concept] = level_of(atlas, one)
        except BlindspotError as error:
            skipped[one.concept] = f"Concept {one.concept} ({one.word}): {error}"
    tested = [one for one in sets if one.concept in levels]
    if not tested:
        raise BlindspotError(next(iter(skipped.values()), "No concept is named: give --concept N."))
    prompts = list(dict.fromkeys(prompt for one in tested for prompt in one.prompts))
    total, done = len(prompts) * request.per_prompt * len(pipelines), 0

    def on_batch(count: int, images: list[Image.Image]) -> None:
        nonlocal done
        done += count
        report(done, total, images)

    drawn: dict[str, list[AskedImage]] = {}
    for name, own in pipelines.items():
        changes = {"seed": request.seed, "steps": request.steps or own.steps, "device": models.device}
        spec = own.model_copy(update=changes)
        drawn[name] = ask(models, spec, prompts, request.per_prompt, images_folder(work, name, spec, atlas), on_batch)
    judged = _Judged(models)
    rows, ranked = list[dict[str, Any]](), dict[tuple[int, str], list[RankedImage]]()
    for one in tested:
        found, best = _test(atlas, one, levels[one.concept], drawn, judged, request.against)
        rows += found
        ranked |= best
    steps = {name: request.steps or own.steps for name, own in pipelines.items()}
    table = pd.DataFrame(rows).assign(seed=request.seed)
    table["steps"] = table["model"].map(steps)
    kept = atlas.stress()
    together = decided(pd.concat([kept[~kept["concept"].isin(levels)], table], ignore_index=True))
    mine = together[together["concept"].isin(levels)]
    return StressResult(mine[TABLES["stress"].names], ranked, skipped, time.perf_counter() - began)


def decided(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of table `stress` with q and verdict of all of them together; p is null where no verdict is possible."""
    q, said = verdicts(
        rows["p"].to_numpy(np.float64), (rows["share"] < LINE).to_numpy(), rows["p"].notna().to_numpy()
    )  # fmt: skip
    return rows.assign(q=q, verdict=said)


def level_of(atlas: Atlas, asked: PromptSet) -> Level:
    """The level of a concept, from the real images that have captions; errors as for `calibrate`."""
    captions = real_captions(atlas)
    told = np.array([bool(caption.strip()) for caption in captions])
    named = np.array([names(caption, asked.word) for caption in captions])
    energies = atlas.energy(REAL)[:, [asked.concept]].toarray().ravel()
    return calibrate(energies[told], named[told])


def control_of(atlas: Atlas, asked: PromptSet, model: str, level: Level) -> Rate:
    """What a model shows when it is not asked: its images in the atlas whose captions do not name the concept.

    Where these are few, the real images without the word stand in.
    """
    images = atlas.images
    captions = images["caption"][images["source"] == model].fillna("").tolist()
    unasked = np.array([bool(text.strip()) and not names(text, asked.word) for text in captions], bool)
    if unasked.sum() < 2 * LEAST_IMAGES:
        return level.without
    energies = atlas.energy(model)[:, [asked.concept]].toarray().ravel()
    return simple_rate(energies[unasked] >= level.energy)


def _test(
    atlas: Atlas,
    asked: PromptSet,
    level: Level,
    drawn: Mapping[str, Sequence[AskedImage]],
    judged: _Judged,
    against: str | None,
) -> tuple[list[dict[str, Any]], dict[tuple[int, str], list[RankedImage]]]:
    """The rows of one concept, without q and verdict, and its images."""
    place = {prompt: number for number, prompt in enumerate(asked.prompts)}
    own = {name: [image for image in images if image.prompt in place] for name, images in drawn.items()}
    found, prompted, seen = dict[str, Asked](), dict[str, Rate](), dict[str, list[bool] | None]()
    ranked = dict[tuple[int, str], list[RankedImage]]()
    for name, images in own.items():
        if not images:
            raise BlindspotError(
                f"None of the images that {name} drew can be used; see {name}'s files in the work folder."
            )
        energies = np.array([image.energies.get(asked.concept, 0.0) for image in images])
        shown, groups = energies >= level.energy, np.array([place[image.prompt] for image in images])
        seen[name] = judged.sees(asked, images)
        found[name] = Asked(clustered_rate(shown, groups), control_of(atlas, asked, name, level))
        by_prompt = np.bincount(groups, weights=shown, minlength=len(place))[np.unique(groups)] > 0
        prompted[name] = simple_rate(by_prompt)
        flags: Sequence[bool | None] = seen[name] or (None,) * len(images)
        listed = [RankedImage(*one) for one in zip(images, energies.tolist(), shown.tolist(), flags, strict=True)]
        ranked[asked.concept, name] = sorted(listed, key=lambda one: -one.energy)
    away = {name: abs(float(atlas.delta(name)["delta"].to_numpy()[asked.concept]) - 0.5) for name in own}
    order = sorted(own, key=away.__getitem__)
    rows = []
    for name, (rate, control) in found.items():
        finding = find(level, found, name, against, order)
        (low, high), (prompts_low, prompts_high) = rate.interval(), prompted[name].interval()
        rows.append(
            {
                "concept": asked.concept, "model": name, "word": asked.word, "prompts_from": asked.origin,
                "prompts": prompted[name].images, "prompts_shown": prompted[name].shown, "prompts_low": prompts_low,
                "prompts_high": prompts_high, "images": rate.images, "shown": rate.shown, "rate": rate.value,
                "ci_low": low, "ci_high": high, "control": control.value, "control_images": control.images,
                "level": level.energy, "real_rate": level.with_word.value, "real_control": level.without.value,
                "against": finding.against, "asked_more": found[name].rise, "share": finding.share,
                "p": finding.p if finding.usable else np.nan,
                "judged": len(seen[name] or ()), "recognised": sum(seen[name] or ()),
            }
        )  # fmt: skip
    return rows, ranked


class _Judged:
    """What the atlas's judge sees in images; each is looked at once. Without a judge that may be loaded, nothing."""

    def __init__(self, models: ModelBundle) -> None:
        self.atlas, self.seen = models.atlas, dict[Path, np.ndarray]()
        try:
            self.judge = models.judge if models.atlas.info.judge else None
        except BlindspotError:
            self.judge = None

    def sees(self, asked: PromptSet, images: Sequence[AskedImage]) -> list[bool] | None:
        """Whether each image shows what the concept stands for, else what its word names; None if nobody knows."""
        if self.judge is None:
            return None
        by_word = (label for label in self.judge.labels if plain_label(label).lower() == asked.word.lower())
        label = next(by_word, None) or concept_label(self.atlas, [asked.concept])
        if label not in self.judge.labels:
            return None
        new = [image for image in images if image.path not in self.seen]
        for start in range(0, len(new), JUDGED_AT_ONCE):
            part = new[start : start + JUDGED_AT_ONCE]
            pixels = torch.cat([to_tensor([image.picture()], self.judge.preparation) for image in part])
            decided = self.judge.decide(self.judge.probabilities(pixels))
            self.seen |= {image.path: row for image, row in zip(part, decided, strict=True)}
        column = self.judge.labels.index(label)
        return [bool(self.seen[image.path][column]) for image in images]
