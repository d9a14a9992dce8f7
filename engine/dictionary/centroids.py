"""k-means centroids of tokens with FAISS: the candidates of an archetypal dictionary."""

from __future__ import annotations

import faiss
import numpy as np
import torch
from torch import Tensor

ITERATIONS = 20
POINTS_PER_CENTROID = 64
NEGLIGIBLE_NORM = 1e-3


def kmeans(tokens: Tensor, count: int, seed: int) -> Tensor:
    """Centroids that can serve as candidates: exactly `count`, none of them zero.

    With fewer tokens than centroids, or with a centroid on the origin (the data's mean), tokens of large norm, repeated
    if need be, fill the gap.

    Parameters
    ----------
    tokens
        Float [n, d], centred, not all zero.
    count
        Number of centroids.
    seed
        Seed of FAISS's initial choice.

    Returns
    -------
    Tensor
        Float32 [count, d] on the device of `tokens`.
    """
    points = tokens.float().cpu()
    if count >= len(points):
        centroids = points
    else:
        data = np.ascontiguousarray(points.numpy())
        clustering = faiss.Kmeans(
            data.shape[1],
            count,
            niter=ITERATIONS,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        clustering.train(data)
        centroids = torch.from_numpy(clustering.centroids.copy())
    norms = centroids.norm(dim=-1)
    centroids = centroids[norms > NEGLIGIBLE_NORM * points.norm(dim=-1).max()]
    spare = points[points.norm(dim=-1).argsort(descending=True, stable=True)]
    spare = spare[: max(1, int((spare.norm(dim=-1) > NEGLIGIBLE_NORM * spare.norm(dim=-1).max()).sum()))]
    fill = torch.arange(count - len(centroids)) % len(spare)
    return torch.cat([centroids, spare[fill]])[:count].to(tokens.device)
