"""The columns of every table of an atlas (DESIGN section 3): each is cast to them when written, checked by `verify`."""

from __future__ import annotations

import pyarrow as pa

_TEXT = pa.string()
_ID = pa.int32()

TABLES: dict[str, pa.Schema] = {
    "concepts": pa.schema(
        [
            ("concept", _ID),
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("cluster", _ID),
            ("label", _TEXT),
            ("label_origin", _TEXT),
            ("words", pa.list_(_TEXT)),
            ("dead", pa.bool_()),
        ]
    ),
    "energies": pa.schema(
        [
            ("source", _TEXT),
            ("concept", _ID),
            ("images", pa.int64()),
            ("sum", pa.float64()),
            ("sum_sq", pa.float64()),
            ("max", pa.float32()),
            ("fires", pa.int64()),
            ("images_active", pa.int64()),
        ]
    ),
    "delta": pa.schema(
        [
            ("model", _TEXT),
            ("concept", _ID),
            ("n", pa.int64()),
            ("gap", pa.float64()),
            ("se", pa.float64()),
            ("relative", pa.float64()),
            ("delta", pa.float64()),
            ("ci_low", pa.float64()),
            ("ci_high", pa.float64()),
            ("p", pa.float64()),
            ("q", pa.float64()),
        ]
    ),
    "images": pa.schema(
        [
            ("image", _ID),
            ("source", _TEXT),
            ("pair", _ID),
            ("caption", _TEXT),
            ("file", _TEXT),
            ("width", _ID),
            ("height", _ID),
            ("sha256", _TEXT),
        ]
    ),
    "exemplars": pa.schema(
        [("source", _TEXT), ("concept", _ID), ("rank", _ID), ("image", _ID), ("score", pa.float32())]
    ),
    "neighbours": pa.schema(
        [("concept", _ID), ("kind", _TEXT), ("rank", _ID), ("other", _ID), ("value", pa.float32())]
    ),
    "labels": pa.schema([("image", _ID), ("attribute", _TEXT), ("value", _TEXT)]),
    "links": pa.schema([("source", _TEXT), ("concept", _ID), ("rank", _ID), ("of", _TEXT), ("url", _TEXT)]),
    "published": pa.schema([("concept", _ID), ("energy", pa.float64()), ("fires", pa.int64())]),
    "dictionary/report": pa.schema(
        [
            ("concept", _ID),
            ("fires", pa.int64()),
            ("coherence", pa.float32()),
            ("nearest", _ID),
            ("hull_distance", pa.float32()),
            ("stability", pa.float32()),
        ]
    ),
    "divergence": pa.schema(
        [
            ("model", _TEXT),
            ("pair", _ID),
            ("image", _ID),
            ("real_image", _ID),
            ("l2", pa.float32()),
            ("mean_delta", pa.float32()),
            ("nearest_real", _ID),
            ("nearest_real_similarity", pa.float32()),
            ("p", pa.float32()),
        ]
    ),
    "changes": pa.schema(
        [
            ("model", _TEXT),
            ("first", _ID),
            ("second", _ID),
            ("real_cosine", pa.float32()),
            ("model_cosine", pa.float32()),
            ("real_tokens", pa.int64()),
            ("model_tokens", pa.int64()),
            ("real_images", pa.int64()),
            ("model_images", pa.int64()),
            ("gap", pa.float64()),
            ("se", pa.float64()),
            ("p", pa.float64()),
            ("p_adjusted", pa.float64()),
        ]
    ),
    "gallery": pa.schema(
        [
            ("concept", _ID),
            ("rank", _ID),
            ("method", _TEXT),
            ("score", pa.float32()),
            ("codes_score", pa.float32()),
            ("reference_score", pa.float32()),
            ("strength", pa.float64()),
            ("steps", _ID),
            ("seed", pa.int64()),
            ("particles", _ID),
            ("states", _ID),
            ("cap", pa.float64()),
            ("until", pa.float64()),
        ]
    ),
    "metrics": pa.schema(
        [
            ("model", _TEXT),
            ("space", _TEXT),
            ("fid", pa.float64()),
            ("fid_mean", pa.float64()),
            ("fid_covariance", pa.float64()),
            ("fid_half", pa.float64()),
            ("precision", pa.float64()),
            ("recall", pa.float64()),
            ("density", pa.float64()),
            ("coverage", pa.float64()),
            ("images", pa.int64()),
            ("k", _ID),
        ]
    ),
}
"""Every table, its columns in order with their types."""

LATER = {"gallery": ("particles", "states", "cap", "until")}
"""Columns that an older atlas lacks; they are read as null there."""
REPORT_TABLE = "dictionary/report"
HALVES = "real halves"
"""What the `model` column of `metrics` says of one random half of the real images against the other."""
ANALYSES = ("divergence", "changes", "metrics")
"""Tables of the analyses beyond delta; an atlas from before they existed has none of them."""
OPTIONAL_TABLES = frozenset({"labels", "links", "published", "gallery", REPORT_TABLE, *ANALYSES})
IMAGE_TABLES = frozenset({"images", "exemplars"})
"""Tables that an atlas of published statistics does without: it has no images."""
