"""What the images of a source show: regions, each of one guise of one of the image's few topics, and a caption.

Whatever is drawn (a topic, a guise of it, a concept of a guise) is drawn as often as its concepts fire together, so
that every concept keeps its expected number of codes however much the concepts of an image have in common.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from precompute.synthetic.vocabulary import GUISES, PICTURED
from precompute.synthetic.world import GUISES_EACH, World

REGIONS, TOPICS = 7, 3
"""Per image."""
PALETTE, COMMON_PALETTE = 32, 40
"""Concepts drawn per region, half of its guise and half of its whole topic, and per image of the common ones."""
SAME_DOMAIN = 0.6
"""How often an image's further topics are of the domain of its first."""
FIDELITY = 0.75
"""Share of the regions that a model's image has in common with the real one of the same caption."""
NAMED = 3
"""Regions that a caption names."""


@dataclass(frozen=True)
class Scenes:
    """The images of one source before they are codes or pixels."""

    topics: np.ndarray
    """int32 `[images, TOPICS]`"""
    regions: np.ndarray
    """int32 `[images, REGIONS]`, communities."""
    palettes: np.ndarray
    """int32 `[images, REGIONS, PALETTE]`, concepts, the leading ones first."""
    common: np.ndarray
    """int32 `[images, COMMON_PALETTE]`, concepts that fire anywhere in the image."""
    centres: np.ndarray
    """float32 `[images, REGIONS, 2]`, row and column in 0..1; a patch belongs to the region of the nearest centre."""

    def __len__(self) -> int:
        return len(self.regions)


def imagine(world: World, images: int, rng: np.random.Generator) -> Scenes:
    """The real images."""
    topics = _topics(world, images, rng)
    regions, palettes = _regions(world, topics, rng)
    centres = rng.random((images, REGIONS, 2)).astype(np.float32)
    return Scenes(topics, regions, palettes, _common(world, images, rng), centres)


def reimagine(world: World, scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A model's images of the same captions: most regions stay, the others show something else of the same topics."""
    regions, palettes = _regions(world, scenes.topics, rng)
    kept = rng.random(scenes.regions.shape) < FIDELITY
    common = np.where(rng.random(scenes.common.shape) < FIDELITY, scenes.common, _common(world, len(scenes), rng))
    return replace(
        scenes,
        regions=np.where(kept, scenes.regions, regions),
        palettes=np.where(kept[:, :, None], scenes.palettes, palettes),
        common=common,
        centres=(scenes.centres + rng.normal(0, 0.04, scenes.centres.shape)).astype(np.float32),
    )


def captions(world: World, scenes: Scenes, rng: np.random.Generator) -> list[str]:
    """One caption per image: its first regions by name."""
    opening = rng.integers(0, len(PICTURED), len(scenes))
    topics, guises = world.topic_of(scenes.regions), world.guise_of(scenes.regions)
    said = []
    for image in range(len(scenes)):
        pairs = zip(guises[image, :NAMED], topics[image, :NAMED], strict=True)
        parts = list(dict.fromkeys(f"{_article(guise)} {GUISES[guise]} {world.names[topic]}" for guise, topic in pairs))
        listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
        said.append(f"{PICTURED[opening[image]]} {listed}")
    return said


def _article(guise: int) -> str:
    return "an" if GUISES[guise][0] in "aeiou" else "a"


def _topics(world: World, images: int, rng: np.random.Generator) -> np.ndarray:
    """int32 `[images, TOPICS]`"""
    shape = (images, TOPICS)
    topics = world.topic_of(_drawn(world, *_span(np.zeros(shape, int), np.full(shape, world.topics - 1)), rng))
    domain = np.repeat(world.domain[topics[:, :1]], TOPICS, axis=1)
    first, end = (np.searchsorted(world.domain, domain, side=side) for side in ("left", "right"))
    alike = world.topic_of(_drawn(world, *_span(first, end - 1), rng))
    stays = rng.random((images, TOPICS)) >= SAME_DOMAIN
    stays[:, 0] = True
    return np.where(stays, topics, alike).astype(np.int32)


def _regions(world: World, topics: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Communities and palettes of the regions of images of these topics."""
    shown = np.take_along_axis(topics, rng.integers(0, TOPICS, (len(topics), REGIONS)), axis=1)
    first, last = _span(shown, shown)
    regions = _drawn(world, first, last, rng)
    wide = rng.random((*shown.shape, PALETTE)) < 0.5
    low, high = (
        np.where(wide, first[..., None], regions[..., None]),
        np.where(wide, last[..., None], regions[..., None]),
    )
    return regions.astype(np.int32), world.order[world.draw(low, high, rng)]


def _common(world: World, images: int, rng: np.random.Generator) -> np.ndarray:
    nowhere = np.zeros((images, COMMON_PALETTE), int)
    return world.order[world.draw(nowhere, nowhere, rng)]


def _drawn(world: World, first: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Communities between `first` and `last`, as frequent as their concepts fire."""
    return world.community[world.order[world.draw(first, last, rng)]]


def _span(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and last communities of topics `first` to `last`."""
    return 1 + first * GUISES_EACH, (last + 1) * GUISES_EACH
