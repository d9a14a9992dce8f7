"""What an atlas on disk is made of: its file names, its columns and its header (DESIGN section 3).

This is the one place that knows the columns. The header `atlas.json` is read and written as the frozen dataclasses
below; every table is cast to its schema before it is written and checked against it by `verify`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from engine.errors import BlindspotError

FORMAT = "blindspot-atlas"
VERSION = 1
REAL = "real"
HEADER = "atlas.json"

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
}
REPORT_TABLE = "dictionary/report"
REPORT = "dictionary/report.json"
OPTIONAL_TABLES = frozenset({"labels", REPORT_TABLE})
NEIGHBOUR_KINDS = ("cooccurrence", "atom", "map")
CSR_VALUES = {"codes": np.dtype(np.float16), "energy": np.dtype(np.float32)}
CSR_PARTS = ("indptr", "indices", "values")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def index_dtype(concepts: int) -> np.dtype:
    """The dtype of concept indices in a CSR folder: uint16 below 65,536 concepts, else uint32."""
    return np.dtype(np.uint16 if concepts < 65536 else np.uint32)


def table_file(name: str) -> str:
    """The file, relative to the atlas, that holds table `name`."""
    return f"{name}.parquet"


def thumb_file(image: int) -> str:
    """The file, relative to the atlas, that holds the thumbnail of global image id `image`."""
    return f"thumbs/{image // 1000:04d}/{image:07d}.webp"


@dataclass(frozen=True)
class Source:
    """One set of images: the real one (named `real`) or what one model generated.

    Attributes
    ----------
    name : folder-safe name; also the value of the `source` and `model` columns.
    kind : `real` or `model`.
    label : what a person reads.
    images : number of images.
    paired : whether images share a `pair` with real ones.
    pairing : what the pairs come from: `caption`, `stem`, `generated` (one image drawn per real caption) or `none`.
    skipped : images that could not be read and were left out.
    description : free text.
    """

    name: str
    kind: str
    label: str
    images: int
    paired: bool = False
    pairing: str = "none"
    skipped: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise BlindspotError(
                f"Source name {self.name!r} cannot be a folder name: use up to 64 letters, digits, dots, dashes or "
                "underscores, starting with a letter or digit."
            )
        if self.kind not in ("real", "model") or (self.kind == "real") != (self.name == REAL):
            raise BlindspotError(
                f"Source {self.name!r} has kind {self.kind!r}: the one real source is named '{REAL}' and has kind "
                "'real', every other source has kind 'model'."
            )
        if not isinstance(self.images, int) or self.images < 0:
            raise BlindspotError(f"Source {self.name!r} has {self.images!r} images: give a whole number, 0 or more.")


@dataclass(frozen=True)
class DeltaDefaults:
    """How delta is computed and read unless the reader asks for something else (DESIGN section 4)."""

    estimator: str = "gap"
    temperature: float = 0.8
    suppressed: float = 0.1
    exaggerated: float = 0.9


@dataclass(frozen=True)
class FileEntry:
    """Checksum of one file, or of one folder of thumbnails (its key ends in `/`, `rows` counts its files)."""

    sha256: str
    bytes: int
    rows: int | None = None


@dataclass(frozen=True)
class AtlasInfo:
    """The header of an atlas, `atlas.json`.

    Attributes
    ----------
    encoder : `EncoderSpec.to_dict()`; needs `id`, `grid` [rows, columns] and `prefix_tokens`.
    dictionary : needs `concepts`; also kind, dim, sparsity, r2 and whatever the training reported.
    sources : real first, in the order of the global image ids.
    prior : the diffusion prior that EnergyDPS draws with ({"id", "kind", "prompt"}), or None.
    stages : per stage, a fingerprint of its parameters and inputs.
    files : per file, checksum, size and rows; filled in by the writer.
    """

    name: str
    encoder: Mapping[str, Any]
    dictionary: Mapping[str, Any]
    sources: tuple[Source, ...]
    description: str = ""
    energy_reduction: str = "sum"
    delta: DeltaDefaults = field(default_factory=DeltaDefaults)
    prior: Mapping[str, Any] | None = None
    stages: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        names = [source.name for source in self.sources]
        if not names or names[0] != REAL or len(set(names)) != len(names):
            raise BlindspotError(f"The sources of an atlas start with '{REAL}' and have distinct names, not {names}.")
        try:
            int(self.dictionary["concepts"]), int(self.encoder["prefix_tokens"]), tuple(map(int, self.encoder["grid"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BlindspotError(
                f"The header of atlas {self.name!r} must give dictionary.concepts, encoder.grid and "
                f"encoder.prefix_tokens as whole numbers ({error!r})."
            ) from error

    @property
    def concepts(self) -> int:
        """Number of concepts in the dictionary, K."""
        return int(self.dictionary["concepts"])

    @property
    def grid(self) -> tuple[int, int]:
        """Patch rows and columns, (h, w)."""
        rows, columns = self.encoder["grid"]
        return int(rows), int(columns)

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches: CLS and registers."""
        return int(self.encoder["prefix_tokens"])

    @property
    def tokens(self) -> int:
        """Tokens per image: prefix and patches."""
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def images(self) -> int:
        """Images over all sources; global image ids are 0 .. images - 1."""
        return sum(source.images for source in self.sources)

    def source(self, name: str) -> Source:
        """The source called `name`; raises `BlindspotError` when there is none."""
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources)
        raise BlindspotError(f"Atlas {self.name!r} has no source {name!r}: choose one of {known}.")

    def image_range(self, name: str) -> range:
        """Global ids of the images of source `name`."""
        start = 0
        wanted = self.source(name)
        for source in self.sources:
            if source is wanted:
                break
            start += source.images
        return range(start, start + wanted.images)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `atlas.json`."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "sources": [asdict(s) for s in self.sources]}

    @classmethod
    def from_dict(cls, document: Any, where: str = HEADER) -> AtlasInfo:
        """Read the JSON document of `atlas.json`.

        Raises
        ------
        BlindspotError
            If it is no atlas header, comes from a newer version, or lacks something.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise BlindspotError(f"{where} is not the header of a {FORMAT}: open a folder that `precompute run` wrote.")
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise BlindspotError(
                f"{where} is a {FORMAT} of version {version}, newer than the version {VERSION} read here: "
                "update this project to open it."
            )
        known = {key: value for key, value in document.items() if key in cls.__dataclass_fields__}
        try:
            known["sources"] = tuple(Source(**source) for source in known.get("sources", ()))
            known["delta"] = DeltaDefaults(**known.get("delta", {}))
            known["files"] = {rel: FileEntry(**entry) for rel, entry in known.get("files", {}).items()}
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise BlindspotError(f"{where} is damaged ({error}): rebuild the atlas.") from error


def contained(rel: str) -> bool:
    """Whether `rel` is a plain relative path that stays inside the folder it is joined to."""
    parts = rel.replace("\\", "/").rstrip("/").split("/")
    return bool(rel) and ":" not in parts[0] and all(part not in ("", ".", "..") for part in parts)
