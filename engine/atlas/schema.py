"""What an atlas on disk is made of: its file names, the columns of its tables, and its header `atlas.json`.

| file | what |
| --- | --- |
| `atlas.json` | the header: `AtlasInfo`, with the checksum of every other file |
| `<table>.parquet` | the tables of `TABLES` |
| `codes/<source>/`, `energy/<source>/` | `storage.CSR` of tokens or images x concepts |
| `images.faiss`, `atoms.faiss` | cosine indices over image embeddings and atoms |
| `thumbs/`, `gallery/`, `stress/` | webp pictures of the images, of what was drawn for concepts, and in stress tests |
| `composition.npz`, `dictionary/report.json` | what `analyses.Composition` and `loading.DictionaryReport` read |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from engine.blindspots.delta import DeltaSettings
from engine.errors import BlindspotError

FORMAT = "blindspot-atlas"
VERSION = 1
REAL = "real"
DEFAULT_PRIOR = "default"
"""Name of the prior of a header's or recipe's `prior`, beside those of its `priors`."""
HEADER = "atlas.json"

REPORT = "dictionary/report.json"
COMPOSITION = "composition.npz"
NEIGHBOUR_KINDS = ("cooccurrence", "atom", "map")
CSR_VALUES: dict[str, np.dtype] = {"codes": np.dtype(np.float16), "energy": np.dtype(np.float32)}
CSR_PARTS = ("indptr", "indices", "values")

_STRINGS = pa.list_(pa.string())


def _schema(columns: str) -> pa.Schema:
    """The arrow schema of `name:type` words."""
    fields = (column.split(":") for column in columns.split())
    return pa.schema([(name, _STRINGS if kind == "strings" else pa.type_for_alias(kind)) for name, kind in fields])


_COLUMNS = {
    "concepts": (
        "concept:int32 x:float32 y:float32 cluster:int32 label:string label_origin:string words:strings dead:bool"
    ),
    "energies": (
        "source:string concept:int32 images:int64 sum:float64 sum_sq:float64 max:float32 fires:int64 "
        "images_active:int64"
    ),
    "delta": (
        "model:string concept:int32 n:int64 gap:float64 se:float64 relative:float64 delta:float64 "
        "ci_low:float64 ci_high:float64 p:float64 q:float64"
    ),
    "images": (
        "image:int32 source:string pair:int32 caption:string file:string width:int32 height:int32 sha256:string"
    ),
    "exemplars": "source:string concept:int32 rank:int32 image:int32 score:float32",
    "neighbours": "concept:int32 kind:string rank:int32 other:int32 value:float32",
    "provenance": "image:int32 url:string licence:string sha256:string",
    "labels": "image:int32 attribute:string value:string",
    "links": "source:string concept:int32 rank:int32 of:string url:string",
    "published": "concept:int32 energy:float64 fires:int64",
    "dictionary/report": (
        "concept:int32 fires:int64 coherence:float32 nearest:int32 hull_distance:float32 stability:float32"
    ),
    "divergence": (
        "model:string pair:int32 image:int32 real_image:int32 l2:float32 mean_delta:float32 "
        "nearest_real:int32 nearest_real_similarity:float32 p:float32"
    ),
    "changes": (
        "model:string first:int32 second:int32 real_cosine:float32 model_cosine:float32 real_tokens:int64 "
        "model_tokens:int64 real_images:int64 model_images:int64 gap:float64 se:float64 p:float64 "
        "p_adjusted:float64"
    ),
    "gallery": (
        "concept:int32 rank:int32 method:string score:float32 codes_score:float32 reference_score:float32 "
        "strength:float64 steps:int32 seed:int64 particles:int32 states:int32 cap:float64 until:float64 "
        "gradient:string zeta:float64 prior:string device:string dtype:string recognised:bool"
    ),
    "recognition": "concept:int32 label:string precision:float32 n:int32 threshold:float32 real_share:float32",
    "fooling": (
        "concept:int32 method:string score:float32 reference_score:float32 recognised:bool steps:int32 seeds:int32 "
        "seconds:float32"
    ),
    "concept_labels": (
        "concept:int32 label:string origin:string description:string confidence:float32 score:float32 "
        "score_low:float32 score_high:float32 images:int32 fuzzing:float32"
    ),
    "stress": (
        "concept:int32 model:string word:string prompts_from:string prompts:int32 prompts_shown:int32 "
        "prompts_low:float64 prompts_high:float64 images:int32 shown:int32 rate:float64 ci_low:float64 ci_high:float64 "
        "control:float64 control_images:int32 level:float32 real_rate:float64 real_control:float64 against:string "
        "asked_more:float64 share:float64 p:float64 q:float64 verdict:string judged:int32 recognised:int32 "
        "steps:int32 seed:int64"
    ),
    "metrics": (
        "model:string space:string fid:float64 fid_mean:float64 fid_covariance:float64 fid_half:float64 "
        "precision:float64 recall:float64 density:float64 coverage:float64 images:int64 k:int32"
    ),
}
TABLES: dict[str, pa.Schema] = {name: _schema(columns) for name, columns in _COLUMNS.items()}
"""Every table, its columns in order with their types."""

LATER = {
    "gallery": ("particles", "states", "cap", "until", "gradient", "zeta", "prior", "device", "dtype", "recognised")
}
"""Columns that an older atlas lacks; they are read as null there."""
RENAMED_METHODS = {"energydps": "energy-guidance", "energydps-light": "energy-guidance-light"}
"""Sampling methods by their names before drawings told the scale of the gradient; `energydps` has since been the
algorithm as printed (arXiv:2605.17504)."""
LABEL_LENGTH, DESCRIPTION_LENGTH = 80, 400
"""Most characters of a concept's label and description in `concept_labels`."""
PERSON = "person"
"""What `origin` in `concept_labels` says of a label that a person wrote: no command replaces it."""
REPORT_TABLE = "dictionary/report"
HALVES = "real halves"
"""What the `model` column of `metrics` says of one random half of the real images against the other."""
ANALYSES = ("divergence", "changes", "metrics")
"""Tables of the analyses beyond delta; an atlas from before they existed has none of them."""
_OPTIONAL = (
    "provenance", "labels", "links", "published", "gallery", "recognition", "fooling", "concept_labels", "stress",
)  # fmt: skip
OPTIONAL_TABLES = frozenset({*_OPTIONAL, REPORT_TABLE, *ANALYSES})
IMAGE_TABLES = frozenset({"images", "exemplars"})
"""Tables that an atlas of published statistics does without: it has no images."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str, "bool": bool, "int": int, "int | None": (int, type(None)), "Mapping[str, Any]": Mapping,
    "Mapping[str, Any] | None": (Mapping, type(None)),
}  # fmt: skip
"""What the header's fields must be, by their annotations."""
_NUMBERS = ("concepts", "dim", "sparsity", "r2", "l0", "dead_share", "steps")
"""Entries of the header's `dictionary` that are numbers, if they are there."""
LARGEST = 2**31 - 1
"""Of all numbers of concepts, images and tokens: ids are int32."""
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


def gallery_file(concept: int, rank: int) -> str:
    """The file, relative to the atlas, that holds one of the images drawn for a concept."""
    return f"gallery/{concept // 1000:04d}/{concept:07d}-{rank:02d}.webp"


def stress_file(concept: int, model: str) -> str:
    """The file, relative to the atlas, with the best images that a model drew when it was asked for a concept."""
    return f"stress/{concept // 1000:04d}/{concept:07d}-{model}.webp"


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

    @property
    def alias(self) -> str:
        """The label, where it says more than the name, by which a source is called everywhere."""
        plain = [re.sub(r"[\W_]+", "", text).casefold() for text in (self.label or "", self.name)]
        return self.label if plain[0] and plain[0] != plain[1] else ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise BlindspotError(
                f"Source name {str(self.name)[:100]!r} cannot be a folder name: use up to 64 letters, digits, "
                "dots, dashes or underscores, starting with a letter or digit."
            )
        if self.kind not in ("real", "model") or (self.kind == "real") != (self.name == REAL):
            raise BlindspotError(
                f"Source {self.name!r} has kind {str(self.kind)[:50]!r}: the one real source is named '{REAL}' "
                "and has kind 'real', every other source has kind 'model'."
            )
        if not isinstance(self.images, int) or self.images < 0:
            raise BlindspotError(
                f"Source {self.name!r} has {str(self.images)[:50]} images: give a whole number, 0 or more."
            )


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
    priors : further ones by name, see `priors_of`.
    judge : the image classifier that says whether a drawing shows its concept ({"id", "revision"}), or None.
    composition_rows : `image` or `token`, what a row of Z is in the composition; older atlases, which do not say, have
        tokens.
    pipelines : by model, the pipeline that drew its images (`engine.pipelines.spec.PipelineSpec`); empty in older
        atlases and for images that came from folders.
    origin : for an atlas made of statistics that others published: kind, files, missing, assumed. It holds no images,
        no codes and no spread; its sources have 0 images, `sum` is the mean energy, and what was not published is null
        or left out. None for an atlas that was measured.
    left_out : per source, how many of its images were left out for which reason; empty in atlases that do not say so.
    stages : per stage, a fingerprint of its parameters and inputs.
    files : per file, checksum, size and rows; filled in by the writer.
    """

    name: str
    encoder: Mapping[str, Any]
    dictionary: Mapping[str, Any]
    sources: tuple[Source, ...]
    description: str = ""
    energy_reduction: str = "sum"
    composition_rows: str = "token"
    delta: DeltaSettings = field(default_factory=DeltaSettings)
    prior: Mapping[str, Any] | None = None
    origin: Mapping[str, Any] | None = None
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    priors: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] | None = None
    pipelines: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        names = [source.name for source in self.sources]
        if not names or names[0] != REAL or len(set(names)) != len(names):
            raise BlindspotError(f"The sources of an atlas start with '{REAL}' and have distinct names, not {names}.")
        if self.origin is not None:
            _check_origin(self.called, self.origin, self.images)
        try:
            int(self.dictionary["concepts"])
            if not self.published:
                int(self.encoder["prefix_tokens"]), tuple(map(int, self.encoder["grid"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BlindspotError(
                f"The header of atlas {self.called} must give dictionary.concepts, encoder.grid and "
                f"encoder.prefix_tokens as whole numbers ({error!r})."
            ) from error

    @property
    def called(self) -> str:
        """The name in quotes, short enough for a sentence."""
        return repr(str(self.name)[:100])

    @property
    def concepts(self) -> int:
        """Number of concepts in the dictionary, K."""
        return int(self.dictionary["concepts"])

    @property
    def published(self) -> bool:
        """Whether this is an atlas of statistics that others published, without images (see `origin`)."""
        return self.origin is not None

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
    def composed(self) -> str:
        """What concepts occur together in, in the composition: `images` or `tokens`."""
        return "images" if self.composition_rows == "image" else "tokens"

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
        raise BlindspotError(f"Atlas {self.called} has no source {name!r}: choose one of {known}.")

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
        document = {"format": FORMAT, "version": VERSION, **asdict(self), "sources": [asdict(s) for s in self.sources]}
        for optional in ("priors", "pipelines"):
            if not document[optional]:
                del document[optional]
        return document

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
                f"{where} is a {FORMAT} of version {str(version)[:20]}, newer than the version {VERSION} read here: "
                "update this project to open it."
            )
        known = {key: value for key, value in document.items() if key in cls.__dataclass_fields__}
        try:
            known["sources"] = tuple(Source(**source) for source in known.get("sources", ()))
            known["delta"] = DeltaSettings(**known.get("delta", {}))
            known["files"] = {rel: FileEntry(**entry) for rel, entry in known.get("files", {}).items()}
            info = cls(**known)
            _check_types(info)
            return info
        except (TypeError, AttributeError, ValueError, OverflowError) as error:
            raise BlindspotError(f"{where} is damaged ({error}): rebuild the atlas.") from error


def priors_of(info: AtlasInfo) -> dict[str, Mapping[str, Any]]:
    """What the header says of each diffusion prior by its name; its `prior` is called `default` and comes first."""
    return ({DEFAULT_PRIOR: info.prior} if info.prior else {}) | dict(info.priors)


def prior_of(info: AtlasInfo, name: str | None = None) -> Mapping[str, Any] | None:
    """What the header says of the prior of that name, of the first one without a name; None where there is none.

    Raises
    ------
    BlindspotError
        If there is no prior of that name.
    """
    known = priors_of(info)
    if name is None:
        return next(iter(known.values()), None)
    if name not in known:
        choice = f"choose one of {', '.join(known)}" if known else "name one in `priors` of its recipe"
        raise BlindspotError(f"Atlas {str(info.name)[:100]!r} has no prior {name[:100]!r}: {choice}.")
    return known[name]


def _check_types(info: AtlasInfo) -> None:
    """Raise `ValueError` unless the header's values are of the types that readers rely on, and counts can be."""
    blocks: list[Any] = [info, *info.sources, *info.files.values()]
    for block in blocks:
        for one in fields(block):
            value, kind = getattr(block, one.name), _KINDS.get(str(one.type))
            if kind and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
                raise ValueError(f"{one.name} cannot be {str(value)[:50]!r}")
    numbers = {name: info.dictionary.get(name) for name in _NUMBERS if info.dictionary.get(name) is not None}
    numbers |= {one.name: getattr(info.delta, one.name) for one in fields(info.delta) if one.name != "estimator"}
    if not isinstance(info.delta.estimator, str):
        raise ValueError(f"estimator cannot be {info.delta.estimator!r}")
    if not all(isinstance(block, Mapping) for block in info.priors.values()) or DEFAULT_PRIOR in info.priors:
        raise ValueError(f"priors cannot be {str(info.priors)[:50]!r}")
    if not all(isinstance(block, Mapping) for block in info.pipelines.values()):
        raise ValueError(f"pipelines cannot be {str(info.pipelines)[:50]!r}")
    for block in (info.encoder, info.dictionary, *priors_of(info).values(), info.judge or {}):
        texts = {name: block[name] for name in ("id", "kind") if name in block}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
            raise ValueError(f"{wrong[0]} cannot be {str(texts[wrong[0]])[:50]!r}")
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} cannot be {str(number)[:50]!r}")
    if not isinstance(info.left_out, Mapping) or not all(map(_are_counts, info.left_out.values())):
        raise ValueError("left_out does not give a number per source and reason")
    tokens = [] if info.published else [*info.encoder["grid"], info.prefix_tokens, info.tokens]
    for number in (info.dictionary["concepts"], info.images, *tokens):
        if type(number) is not int or not 0 <= number <= LARGEST:
            raise ValueError(f"a number of concepts, images or tokens cannot be {str(number)[:50]}")


def _are_counts(found: Any) -> bool:
    return isinstance(found, Mapping) and all(
        type(number) is int and 0 <= number <= LARGEST for number in found.values()
    )


def _check_origin(name: str, origin: Any, images: int) -> None:
    """Raise `BlindspotError` unless `origin` has what readers show of it and the atlas has no images."""
    if images:
        raise BlindspotError(f"Atlas {name} names an origin and has images: published statistics have none.")
    try:
        texts = [*(entry["file"] for entry in origin["files"]), *origin["missing"], *origin["assumed"].values()]
        whole = all(isinstance(text, str) for text in texts)
    except (TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise BlindspotError(f"The origin of atlas {name} lacks its files, missing or assumed: import it again.")


def contained(rel: str) -> bool:
    """Whether `rel` is a plain relative path that stays inside the folder it is joined to."""
    parts = rel.replace("\\", "/").rstrip("/").split("/")
    return bool(rel) and ":" not in parts[0] and all(part not in ("", ".", "..") for part in parts)


def web_address(url: str | None) -> bool:
    """Whether `url` is a plain http(s) address: with a host, without user, spaces, quotes, query or fragment."""
    if not url or not url.isprintable() or set(url) & set(" \"'<>\\`?#"):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
