"""Everything that is invented for one atlas, made again from the seed whenever it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np

from engine.atlas.schema import REAL
from engine.atlas.storage import CSR
from engine.errors import BlindspotError
from precompute.synthetic.codes import Planted, draw_codes, plant
from precompute.synthetic.scenes import Scenes, captions, imagine, reimagine
from precompute.synthetic.world import GUISES, Size, World, make_atoms, make_world


class Invention:
    """The world, the images of every source and what is planted in each model.

    Parameters
    ----------
    size
        Of the atlas.
    planted
        Concepts planted per model.
    seed
        The same one gives the same invention.

    Raises
    ------
    BlindspotError
        If more is planted than fits, or the seed is negative.
    """

    def __init__(self, size: Size, planted: int, seed: int) -> None:
        if seed < 0:
            raise BlindspotError(f"--seed {seed} is below 0; give 0 or more.")
        self.size, self.planted_each, self.seed = size, planted, seed
        self.models = [f"model-{number}" for number in range(1, size.models + 1)]
        found = plant(self.world, planted, self._rng(1))
        self.planted: Mapping[str, Planted] = dict(zip(self.models, found, strict=True))

    @cached_property
    def world(self) -> World:
        """Which concepts there are."""
        return make_world(self.size, self._rng(0))

    @cached_property
    def atoms(self) -> np.ndarray:
        """float32 `[concepts, dim]`"""
        return make_atoms(self.world, self._rng(2))

    @cached_property
    def real(self) -> Scenes:
        """The real images."""
        return imagine(self.world, self.size.images, self._rng(3))

    @cached_property
    def captions(self) -> list[str]:
        """One per pair of images."""
        return captions(self.world, self.real, self._rng(4))

    def scenes(self, name: str) -> Scenes:
        """The images of a source."""
        return self.real if name == REAL else reimagine(self.world, self.real, self._rng(5, self._number(name)))

    def codes(self, name: str) -> Iterator[CSR]:
        """The token codes of a source, `codes.CHUNK` images at a time."""
        seed = (self.seed, 6, self._number(name))
        return draw_codes(self.world, self.scenes(name), self.planted.get(name), seed)

    def labels(self) -> list[tuple[int, str, str]]:
        """What the real images show: position, attribute, value."""
        topics, guises = self.world.topic_of(self.real.regions), self.world.guise_of(self.real.regions)
        rows = []
        for image in range(len(self.real)):
            rows += [(image, "thing", self.world.names[topic]) for topic in np.unique(topics[image])]
            rows += [(image, "guise", GUISES[guise]) for guise in np.unique(guises[image])]
        return rows

    def _number(self, name: str) -> int:
        return 0 if name == REAL else 1 + self.models.index(name)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])
