"""How a concept and all single neurons answer to the real images of an atlas: the maps' correlation, every score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.atlas.reader import Atlas
from engine.samplers.generation import REFERENCES, Reference
from engine.samplers.models import real_images, thumbnails
from engine.samplers.retrieval import BATCH, Pool
from engine.samplers.scores import ConceptScore, reduce_maps

SIGNS = (1, -1)


@dataclass(frozen=True)
class Survey:
    """Real images as a concept and as the channels of the patch tokens see them."""

    pool: Pool
    """The images and the concept's scores."""
    neurons: np.ndarray
    """[2, n, d] float32, score of each image by each neuron, for what excites it and for what inhibits it."""
    correlation: np.ndarray
    """[d], Pearson's r of the concept's pre-activation and each neuron over all patches; 0 for a constant neuron."""

    def scores(self, neuron: int, sign: int) -> np.ndarray:
        """Scores [n] by one neuron, as `NeuronScore` gives them."""
        return self.neurons[SIGNS.index(sign), :, neuron].astype(np.float64)

    def references(self, scores: np.ndarray) -> tuple[Reference, ...]:
        """The best images by scores [n], best first."""
        best = np.argsort(-scores, kind="stable")[:REFERENCES]
        return tuple(Reference(int(self.pool.images[place]), float(scores[place])) for place in best)


@torch.no_grad()
def survey_neurons(
    atlas: Atlas,
    score: ConceptScore,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:
    """Look at every real image of an atlas once.

    Parameters
    ----------
    atlas
        Whose thumbnails are looked at.
    score
        Of the concept.
    device
        Where the encoder runs.
    report
        Called with the images done and all images.

    Raises
    ------
    BlindspotError
        If the atlas holds no real images.
    """
    images = real_images(atlas)
    concept, neurons, sums = [], [], _Sums()
    concepts = torch.tensor(score.concepts, device=device)
    for start in range(0, len(images), BATCH):
        report(start, len(images))
        patches = score.encoder(thumbnails(atlas, images[start : start + BATCH], score.encoder.spec).to(device)).patches
        maps = score.dictionary.preactivate(patches.flatten(0, 2), concepts).unflatten(0, patches.shape[:3])
        concept.append(score.reduce(maps).double().cpu())
        neurons.append(
            torch.stack([reduce_maps(sign * patches, score.peak, score.mean) for sign in SIGNS]).float().cpu()
        )
        sums.add(patches.flatten(0, 2), maps.flatten())
    pool = Pool(images, torch.cat(concept).numpy())
    return Survey(pool, torch.cat(neurons, dim=1).numpy(), sums.correlation())


class _Sums:
    """Sums that Pearson's r of many columns with one follows from, in double precision."""

    def __init__(self) -> None:
        self.count, self.sums = 0, None

    def add(self, columns: Tensor, one: Tensor) -> None:
        """Take in columns [n, d] and one [n]."""
        x, y = columns.double(), one.double()[:, None]
        if self.sums is None:
            self.x0, self.y0 = x.mean(dim=0), y.mean()  # near the mean, so that nothing cancels
        x, y = x - self.x0, y - self.y0
        parts = [x.sum(dim=0), x.square().sum(dim=0), (x * y).sum(dim=0), y.sum().expand(x.shape[1]),
                 y.square().sum().expand(x.shape[1])]  # fmt: skip
        self.count += len(x)
        self.sums = torch.stack(parts) if self.sums is None else self.sums + torch.stack(parts)

    def correlation(self) -> np.ndarray:
        """Pearson's r [d]."""
        x, xx, xy, y, yy = (self.sums / self.count).cpu().numpy()
        spread = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
        return np.divide(xy - x * y, spread, out=np.zeros_like(xy), where=spread > 0)
