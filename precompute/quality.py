"""The command `quality`: how good the images of folders look and how near they come to a reference, method by method.

Distances are taken in the atlas's own encoder, by its class token and by its mean patch token, and in any other
network whose weights are given: KID, the Frechet distance (FD), precision and recall. How different the images of a
folder look from each other is told place by place, by the encoder's patches and by LPIPS; how good each looks, by
QualiCLIP and NRQM. These are the columns of EnergyDPS (arXiv:2605.17504), Tables 3 and 8 to 10; Table 11's memory is
what `benchmark samplers` measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from precompute.console import AsJson, Reporter, print_json
from precompute.drawing import AllowDownload, AtlasFolder, DeviceOption

if TYPE_CHECKING:
    from PIL import Image

    from engine.atlas.reader import Atlas
    from engine.samplers.metrics import Estimate
    from engine.vision.encoder import Encoder
    from engine.vision.quality import FeatureNetwork

MOST_REFERENCE = 2000
"""Real images of an atlas that are compared with, evenly spread, where no folder is named."""
MOST_PAIRED = 64
"""Images of a folder whose pairs are compared, evenly spread."""
CHUNK = 64
"""Images in memory at once."""
NEIGHBOUR = 3
"""k of precision and recall, as in Kynkaanniemi et al. (2019)."""
SETS = ("kid", "fd", "precision", "recall")
"""Metrics of a set of images in a space of features, the columns of the first table; a metric's name is one of these
and the space."""
SINGLE = ("score", "recognised", "pair distance", "lpips", "qualiclip", "nrqm", "seconds")
"""The other metrics, the columns of the second one."""
HEADINGS = {"score": "s(x)", "kid": "KID", "fd": "FD", "lpips": "LPIPS", "nrqm": "NRQM", "qualiclip": "QualiCLIP"}


@dataclass
class MeasuredFolder:
    """One row: a folder's images."""

    method: str
    """The folder's name."""
    images: int
    metrics: dict[str, Estimate] = field(default_factory=dict)
    """By name, with the standard error and the number of images behind each."""


@dataclass
class QualityReport:
    """What `judge_folders` found."""

    atlas: str
    encoder: str
    """Whose features are compared."""
    reference: str
    """What the folders are compared with."""
    reference_images: int
    rows: list[MeasuredFolder]
    not_shown: list[str]
    """A sentence for each metric that needs more images."""
    licenses: dict[str, str]
    """Of the judges that were asked."""

    def as_document(self) -> dict[str, Any]:
        """Return a JSON object."""
        rows = [
            {"method": row.method, "images": row.images, **{name: one._asdict() for name, one in row.metrics.items()}}
            for row in self.rows
        ]
        return {**self.__dict__, "rows": rows}


class Features:
    """Features of a set of images, by the space that they lie in, gathered part by part."""

    def __init__(self, encoder: Encoder, network: FeatureNetwork | None) -> None:
        self.encoder, self.network = encoder, network
        self.parts: dict[str, list[np.ndarray]] = {}

    def add(self, images: Sequence[Image.Image]) -> None:
        """Look at some images."""
        from engine.samplers.metrics import embeddings
        from engine.vision.preprocess import to_tensor

        found = embeddings(self.encoder, to_tensor(images, self.encoder.spec))
        spaces = {"patches": found.patches}
        if self.encoder.spec.prefix_tokens:
            spaces = {"class token": found.image, **spaces}
        if self.network is not None:
            spaces[self.network.name] = self.network.features(images)
        for space, values in spaces.items():
            self.parts.setdefault(space, []).append(values)

    def empty(self) -> Features:
        """Return the same without any images."""
        return Features(self.encoder, self.network)

    def spaces(self) -> dict[str, np.ndarray]:
        """Everything so far, [n, d] of each space."""
        return {space: np.concatenate(parts) for space, parts in self.parts.items()}


def judge_folders(
    atlas: Atlas,
    folders: Sequence[Path],
    reference: Path | None = None,
    judges: Sequence[str] = (),
    features: Path | None = None,
    device: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> QualityReport:
    """Measure the images below each folder.

    Parameters
    ----------
    atlas
        Whose encoder compares, and whose real images are the reference unless a folder is.
    folders
        Of images, for example as `sample` leaves them; what drawings say of their scores, recognition and time is
        averaged, too.
    reference
        Folder of images to be near to, for example of the prior's own samples.
    judges
        Of `engine.vision.quality.QUALITY_MODELS`.
    features
        Another network to compare in, see `engine.vision.quality.FeatureNetwork`.
    device
        See `engine.devices.drawing_placement`.
    report
        Called with the images done and all images.

    Raises
    ------
    BlindspotError
        If a folder has no images or one cannot be read, or a network, package or weights are not there.
    """
    from engine.samplers.models import ModelBundle, real_images
    from engine.vision.preprocess import load_image, to_tensor
    from engine.vision.quality import FeatureNetwork, no_reference_judge, require_quality
    from precompute.stages.corpus import image_names

    licenses = {name: require_quality(name).license for name in judges}
    models = ModelBundle(atlas, device)
    network = None if features is None else FeatureNetwork(features, models.device)
    single = {name: no_reference_judge(name, models.device) for name in judges if name != "lpips"}
    files = {folder: [folder / name for name in image_names(folder)] for folder in folders}
    wanted: list[Any] = []
    if reference is None:
        wanted = real_images(atlas, MOST_REFERENCE).tolist()
    else:
        wanted = [reference / name for name in image_names(reference)]
    total, done = len(wanted) + sum(map(len, files.values())), 0
    known = Features(models.encoder, network)
    for part in _chunks(wanted):
        known.add([atlas.image(one) if reference is None else load_image(one) for one in part])
        done += len(part)
        report(done, total)
    spaces, rows, notes = known.spaces(), [], dict[str, None]()
    for folder in folders:
        row, seen = MeasuredFolder(folder.resolve().name, len(files[folder]), recorded(folder)), known.empty()
        marks: dict[str, list[np.ndarray]] = {}
        for part in _chunks(files[folder]):
            images = [load_image(file) for file in part]
            seen.add(images)
            for name, judge in single.items():
                marks.setdefault(name, []).append(judge(to_tensor(images)))
            done += len(part)
            report(done, total)
        for space, drawn in seen.spaces().items():
            unit = network is None or space != network.name or network.unit
            row.metrics |= compared(space, spaces[space], drawn, unit, notes)
        row.metrics |= pairs(files[folder], models.encoder, "lpips" in judges, models.device)
        row.metrics |= {name: _mean(np.concatenate(values)) for name, values in marks.items()}
        rows.append(row)
    if len({row.method for row in rows}) < len(rows):
        for row, folder in zip(rows, folders, strict=True):
            row.method = str(folder)
    where = f"the real images of {atlas.info.name}, as the atlas keeps them" if reference is None else str(reference)
    spec = models.encoder.spec
    read = "last layer" if spec.layer is None and spec.hook is None else f"layer {spec.hook or spec.layer}"
    encoder = f"{atlas.info.encoder['id']}, {read}, {spec.image_size} px"
    return QualityReport(str(atlas.path), encoder, where, len(wanted), rows, list(notes), licenses)


def compared(
    space: str, reference: np.ndarray, drawn: np.ndarray, unit: bool, notes: dict[str, None]
) -> dict[str, Estimate]:
    """How near drawn features [n, d] of a space come to the reference's [m, d]; `notes` gets what is not shown."""
    from engine.blindspots.metrics import frechet_distance, manifold_metrics
    from engine.samplers.metrics import FEWEST_KID, Estimate, kid

    found: dict[str, Estimate] = {}
    fewest, dim = min(len(reference), len(drawn)), drawn.shape[1]
    if (distance := kid(reference, drawn, unit)) is not None:
        found[f"kid {space}"] = distance
        near = manifold_metrics(reference, drawn, NEIGHBOUR)
        for name, share, n in (("precision", near.precision, len(drawn)), ("recall", near.recall, len(reference))):
            found[f"{name} {space}"] = Estimate(share, math.sqrt(share * (1 - share) / n), n)
    else:
        notes[f"KID, precision and recall need {FEWEST_KID} images of both sets."] = None
    if fewest > dim:
        found[f"fd {space}"] = Estimate(frechet_distance(reference, drawn).distance, math.nan, len(drawn))
    else:
        notes[f"FD by {space} needs more than {dim} images of both sets, as many as it has features."] = None
    return found


def pairs(files: Sequence[Path], encoder: Encoder, lpips: bool, device: str) -> dict[str, Estimate]:
    """How different the images of a folder look, by the encoder and, if wanted, by LPIPS; nothing of a single image."""
    from engine.samplers.metrics import pair_mean, perceptual_distances
    from engine.vision.preprocess import load_image, to_tensor
    from engine.vision.quality import lpips_distances

    some = np.linspace(0, len(files) - 1, min(len(files), MOST_PAIRED)).round().astype(int)
    if len(some) < 2:
        return {}
    images = [load_image(files[position]) for position in some]
    found = {"pair distance": pair_mean(perceptual_distances(encoder, to_tensor(images, encoder.spec)))}
    return found | ({"lpips": pair_mean(lpips_distances(to_tensor(images), device))} if lpips else {})


def recorded(folder: Path) -> dict[str, Estimate]:
    """Mean score, share of recognised images and seconds an image, of all drawings of `sample` below a folder."""
    from engine.samplers.metrics import Estimate
    from engine.samplers.records import RECORD, load_generation

    records = [load_generation(file.parent) for file in sorted(folder.rglob(RECORD))]
    scores = [score for record in records for score in record["scores"]]
    seen = [one for record in records for one in (record.get("recognition") or {}).get("recognised", ())]
    found = {"score": _mean(np.array(scores))} if scores else {}
    if seen and len(seen) == len(scores):
        found["recognised"] = _mean(np.array(seen, float))
    if scores:
        found["seconds"] = Estimate(sum(record["seconds"] for record in records) / len(scores), math.nan, len(scores))
    return found


def _mean(values: np.ndarray) -> Estimate:
    from engine.samplers.calibration import standard_error
    from engine.samplers.metrics import Estimate

    error = standard_error(values.tolist()) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error, len(values))


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def quality(
    atlas: AtlasFolder,
    folders: Annotated[list[Path], typer.Argument(help="Folders of images, one a method.", show_default=False)],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Folder of images to be near to.", show_default="the atlas's real images"),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", help="Also nrqm, qualiclip or lpips: optional packages, see their licences."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Folder of these judges' weights.", show_default="torch's hub")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="Another network to compare in: a model folder, or TorchScript you trust."),
    ] = None,
    device: DeviceOption = "auto",
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Compare drawn images with real ones or with a prior's: KID, FD, precision, recall, diversity, quality.

    Each number stands with its standard error; what rests on too few images is left out. Compare folders of equal size.
    """
    import os

    import torch

    from engine.atlas.reader import Atlas
    from engine.hub import ALLOW

    if allow_download:
        os.environ[ALLOW] = "1"
    if weights is not None:
        torch.hub.set_dir(str(weights))
    opened = Atlas.open(atlas)
    with Reporter() as reporter:
        bar = reporter.task("quality", "images")
        found = judge_folders(opened, folders, reference, judge or (), features, device, bar)
    if as_json:
        print_json(found.as_document())
    else:
        print_report(found)


def print_report(found: QualityReport) -> None:
    """Print the tables, and a line for what they rest on."""
    from rich.console import Console
    from rich.table import Table

    from precompute.studies.commands import WIDTH

    console = Console(soft_wrap=True, highlight=False, width=max(Console().width, WIDTH))
    names = dict.fromkeys(name for row in found.rows for name in row.metrics)
    spaces = dict.fromkeys(space for name in names for first, _, space in [name.partition(" ")] if first in SETS)
    if spaces:
        table = Table("method", "features", "n", *(HEADINGS.get(name, name) for name in SETS), box=None, pad_edge=False)
        for row in found.rows:
            for space in spaces:
                cells = [_cell(row.metrics.get(f"{name} {space}")) for name in SETS]
                table.add_row(row.method, space, str(row.images), *cells)
        console.print(table)
    if columns := [name for name in SINGLE if name in names]:
        table = Table("method", "n", *(HEADINGS.get(name, name) for name in columns), box=None, pad_edge=False)
        for row in found.rows:
            table.add_row(row.method, str(row.images), *(_cell(row.metrics.get(name)) for name in columns))
        console.print(table)
    console.print(f"Compared with {found.reference_images} images: {found.reference}.", markup=False)
    console.print(f"Encoder: {found.encoder}; embeddings of length 1.", markup=False)
    for sentence in found.not_shown:
        console.print(f"- Not shown: {sentence}", markup=False)
    for name, license in found.licenses.items():
        console.print(f"- {name}: {license}.", markup=False)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.3g}" + ("" if math.isnan(estimate.error) else f" ± {estimate.error:.1g}")
