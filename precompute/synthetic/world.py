"""The concepts of a synthetic atlas: how often and how strongly each fires, which belong together, and their atoms.

Frequency and energy follow laws fitted to the authors' 32,000 RA-SAE concepts on ImageNet. Both are normal-Laplace on a
log scale, log x = mu + sigma Z + E1 / alpha - E2 / beta with Z standard normal and E1, E2 standard exponential (Reed
and Jorgensen 2004): lognormal in the middle, a power law in each tail. One is for the token codes above zero (`nb_fire`
of the authors' table), the other for the energy of a code, which also rises a little with how often a concept fires.
Both laws are within 0.02 of the table (Kolmogorov-Smirnov). The last thousandth of concepts is heavier here: an energy
of about 900 at the 99.9th percentile where the table has 250, but for its three that fire in a third of all tokens.

The most frequent concepts are common: they fire in any image (position, texture, lighting). Every other concept belongs
to one guise of one topic ("striped chair"), and topics to domains, so that co-occurrence has structure at three scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError

PREFIX = 5
"""A class token and four registers in front of the patches, as DINOv2 has them."""
COMMON = 0.02
"""Share of the concepts that are common."""
TOPIC_SIZE, MOST_TOPICS, GUISES_EACH = 125, 256, 8
BOUNDS = {
    "concepts": (64, 1_000_000),
    "images": (16, 1_000_000),
    "models": (1, 32),
    "sparsity": (2, 64),
    "dim": (4, 8192),
}
LARGEST_CODE = 6e4
"""Codes are kept as float16."""
LARGEST_SHARE = 0.035
"""Of all codes above zero, at most so many belong to one concept, as in the authors' table."""
DOMAINS = {
    "street": "car bus lorry tram taxi scooter kerb crossing "
    "lamppost hydrant bollard signpost shopfront awning bench bin",
    "water": "boat ferry kayak pier lighthouse buoy harbour canal waterfall fountain dock anchor raft wave reef lagoon",
    "air": "plane helicopter glider balloon kite drone airship parachute "
    "runway hangar propeller cockpit rocket cloud contrail windsock",
    "pets": "dog cat hamster rabbit parrot canary goldfish tortoise "
    "gecko ferret puppy kitten aquarium kennel collar leash",
    "farm": "cow horse sheep goat pig hen duck goose barn tractor haystack fence silo orchard plough donkey",
    "wild": "lion tiger bear wolf fox deer zebra giraffe elephant monkey snake crocodile owl eagle penguin seal",
    "insects": "bee wasp butterfly moth beetle ant spider dragonfly "
    "grasshopper ladybird snail worm caterpillar cobweb hive cricket",
    "fruit": "apple pear banana orange lemon cherry grape melon peach plum strawberry mango kiwi fig coconut pineapple",
    "meals": "pizza burger sandwich soup salad pasta sushi cake bread cheese omelette pancake stew taco curry pie",
    "kitchen": "kettle pan oven fridge toaster knife fork spoon plate bowl mug jug whisk ladle colander sieve",
    "rooms": "chair table sofa bed lamp curtain carpet shelf "
    "wardrobe mirror clock desk staircase fireplace window door",
    "music": "guitar piano violin drum trumpet flute harp cello "
    "accordion saxophone banjo microphone organ tambourine bell gramophone",
    "sport": "football racket bicycle skateboard surfboard ski sledge snowboard "
    "goal stadium glove helmet javelin hurdle trophy dumbbell",
    "clothes": "hat scarf coat shirt dress skirt boot sandal glasses umbrella handbag backpack necklace watch tie sock",
    "plants": "palm oak pine fern cactus tulip rose daisy sunflower ivy moss mushroom bamboo willow hedge meadow",
    "tools": "hammer saw drill ladder wrench screwdriver bucket spade rake axe anvil pulley toolbox lathe vice rope",
}
GUISES = (
    *("red", "blue", "green", "yellow", "striped", "dotted", "checked", "wooden"),
    *("old", "broken", "tiny", "huge", "shiny", "blurred", "distant", "crowded"),
)
PICTURED = ("a photo of", "a picture of", "a view of", "a close shot of")


class NormalLaplace(NamedTuple):
    """A normal-Laplace law."""

    mu: float
    sigma: float
    alpha: float
    """Exponent of the upper tail of exp(x)."""
    beta: float
    """Exponent of its lower tail."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """float64 `[count]` draws."""
        normal, up, down = rng.normal(size=count), rng.exponential(size=count), rng.exponential(size=count)
        return self.mu + self.sigma * normal + up / self.alpha - down / self.beta


class Marginals(NamedTuple):
    """The law of a concept's number of codes above zero, and of its energy given that number."""

    fires: NormalLaplace
    """log(nb_fire)."""
    slope: float
    """By how much log(energy / nb_fire) rises with log(nb_fire)."""
    strength: NormalLaplace
    """log(energy / nb_fire) - slope * log(nb_fire)."""

    def sample(self, concepts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`nb_fire` and `energy` of so many concepts, float64 `[concepts]` each, on the scale of the authors' table."""
        fires = self.fires.sample(concepts, rng)
        energy = (1 + self.slope) * fires + self.strength.sample(concepts, rng)
        fires = np.exp(fires)
        limit = max(LARGEST_SHARE, 4 / concepts) * fires.sum()
        return np.minimum(fires, limit), np.exp(energy) * np.minimum(1.0, limit / fires)


REFERENCE = Marginals(
    fires=NormalLaplace(mu=10.567, sigma=0.319, alpha=1.256, beta=2.003),
    slope=0.0826,
    strength=NormalLaplace(mu=-10.527, sigma=0.065, alpha=4.806, beta=33.08),
)
"""Fitted to the authors' table by largest likelihood, as tests/precompute/test_synthesize.py does."""


@dataclass(frozen=True)
class Size:
    """How large a synthetic atlas is.

    Raises
    ------
    BlindspotError
        If no atlas can have this size.
    """

    concepts: int
    images: int
    """Per source."""
    models: int
    tokens: int = 261
    """Per image: 5 and a square number of patches."""
    sparsity: int = 5
    """Codes a token, at most."""
    dim: int = 768
    """Width of atoms and image embeddings."""

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise BlindspotError(f"--{name} {value} is outside {low} to {high:,}; choose another number.")
        if self.side < 2 or self.side**2 + PREFIX != self.tokens:
            raise BlindspotError(
                f"--tokens {self.tokens} is not {PREFIX} more than a square number from 4 on; "
                f"take for example {PREFIX + 16} or {PREFIX + 256}."
            )

    @property
    def side(self) -> int:
        """Patches along one side of an image."""
        return int(max(self.tokens - PREFIX, 0) ** 0.5 + 0.5)


@dataclass(frozen=True)
class World:
    """The concepts of a synthetic atlas. Communities are numbered from 1, topic by topic; 0 is the common one."""

    size: Size
    fires: np.ndarray
    """float64 `[concepts]`, expected codes per image; they sum to tokens x sparsity."""
    energy: np.ndarray
    """float64 `[concepts]`, expected energy per image, on the scale of the authors' table."""
    community: np.ndarray
    """int32 `[concepts]`"""
    order: np.ndarray
    """int32 `[concepts]`, the concepts sorted by community."""
    edges: np.ndarray
    """float64 `[concepts + 1]`, running sum of `fires` in that order."""
    starts: np.ndarray
    """int64 `[communities + 1]`, where each community begins in that order."""
    domain: np.ndarray
    """int32 `[topics]`, rising."""
    names: list[str]
    """Per topic."""

    @property
    def topics(self) -> int:
        """Number of topics."""
        return len(self.domain)

    @property
    def common_share(self) -> float:
        """Share of the codes that are of common concepts."""
        return float(self.edges[self.starts[1]] / self.edges[-1])

    @property
    def strength(self) -> np.ndarray:
        """float64 `[concepts]`, mean of a code above zero."""
        return self.energy / self.fires

    def topic_of(self, communities: np.ndarray) -> np.ndarray:
        """The topic of each community, -1 for the common one."""
        return (np.asarray(communities) - 1) // GUISES_EACH

    def guise_of(self, communities: np.ndarray) -> np.ndarray:
        """Which of `GUISES` each community is."""
        communities = np.asarray(communities)
        return ((communities - 1) % GUISES_EACH * 2 + self.topic_of(communities) % 2) % len(GUISES)

    def draw(self, first: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Positions in `order`, as frequent as they fire, each within the communities `first` to `last` inclusive."""
        low, high = self.edges[self.starts[first]], self.edges[self.starts[last + 1]]
        found = np.searchsorted(self.edges, low + (high - low) * rng.random(np.shape(first)), side="right") - 1
        return np.clip(found, self.starts[first], self.starts[last + 1] - 1)


def make_world(size: Size, rng: np.random.Generator) -> World:
    """A world of the given size."""
    fires, energy = REFERENCE.sample(size.concepts, rng)
    fires *= size.tokens * size.sparsity / fires.sum()
    energy = np.minimum(energy, 0.1 * LARGEST_CODE * fires)
    topics = int(np.clip(round(size.concepts / TOPIC_SIZE), 4, MOST_TOPICS))
    community = _communities(fires, topics, rng)
    order = np.argsort(community, kind="stable").astype(np.int32)
    communities = topics * GUISES_EACH + 1
    starts = np.searchsorted(community[order], np.arange(communities + 1))
    edges = np.concatenate([[0.0], np.cumsum(fires[order])])
    names, domains = things()
    chosen = np.arange(topics) * len(names) // topics
    domain = np.array([list(DOMAINS).index(domains[at]) for at in chosen], np.int32)
    return World(size, fires, energy, community, order, edges, starts, domain, [names[at] for at in chosen])


def make_atoms(world: World, rng: np.random.Generator) -> np.ndarray:
    """float32 `[concepts, dim]` unit atoms: those of a guise, a topic and a domain have a direction in common."""
    dim = world.size.dim
    topics = world.topic_of(world.community)
    domain = np.where(topics < 0, len(DOMAINS), world.domain[topics])
    atoms = rng.normal(size=(world.size.concepts, dim)).astype(np.float32)
    for weight, group in ((0.6, domain), (0.9, topics + 1), (0.7, world.community)):
        atoms += weight * rng.normal(size=(int(group.max()) + 1, dim)).astype(np.float32)[group]
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def _communities(fires: np.ndarray, topics: int, rng: np.random.Generator) -> np.ndarray:
    """The community of each concept, int32 `[concepts]`; in a small world some are empty."""
    count = topics * GUISES_EACH
    weights = rng.lognormal(0, 0.4, topics)[np.arange(count) // GUISES_EACH] * rng.lognormal(0, 0.6, count)
    community = 1 + rng.choice(count, size=len(fires), p=weights / weights.sum())
    common = np.argsort(-fires, kind="stable")[: max(1, round(COMMON * len(fires)))]
    community[common] = 0
    return community.astype(np.int32)


def things() -> tuple[list[str], list[str]]:
    """The names of 256 things, and the domain of each."""
    named = [(thing, domain) for domain, line in DOMAINS.items() for thing in line.split()]
    return [thing for thing, _ in named], [domain for _, domain in named]
