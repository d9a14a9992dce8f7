"""Drawings as files: PNG images beside one `drawing.json`; and previews as JPEG."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from engine.errors import BlindspotError

if TYPE_CHECKING:
    from torch import Tensor

    from engine.samplers.drawing import Drawing

RECORD = "drawing.json"


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Images [n, 3, H, W] in [0, 1] as 8-bit pictures."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def preview_jpeg(images: Tensor, quality: int = 85) -> bytes:
    """Images [n, 3, H, W] in [0, 1], side by side, as one JPEG."""
    row = np.concatenate([np.asarray(picture) for picture in to_pictures(images)], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(row).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def save_drawing(drawing: Drawing, folder: Path) -> list[Path]:
    """Write `00.png`, `01.png` ... and, last, `drawing.json`; each file appears whole or not at all.

    Returns
    -------
    The image files, in order.

    Raises
    ------
    BlindspotError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for number, picture in enumerate(to_pictures(drawing.samples.images)):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            files.append(_write(folder / f"{number:02d}.png", buffer.getvalue()))
        _write(folder / RECORD, json.dumps(_record(drawing, files), indent=1).encode())
    except OSError as error:
        raise BlindspotError(f"The drawing cannot be written to {folder}: {error.strerror or error}.") from error
    return files


def load_drawing(folder: Path) -> dict[str, Any]:
    """The record of a saved drawing.

    Returns
    -------
    A dict with `parameters`, `images` (file names), `scores`, `codes_scores`, `trace` [steps][n], `references`
    (list of {image, score}, best first), `reference_score`, `matched` (a `matching.Match`, or None) and `seconds`.

    Raises
    ------
    BlindspotError
        If the folder holds no drawing.
    """
    try:
        return json.loads((Path(folder) / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise BlindspotError(f"{folder} holds no drawing: generate it again.") from error


def _record(drawing: Drawing, files: list[Path]) -> dict[str, Any]:
    return {
        "parameters": dict(drawing.parameters),
        "images": [file.name for file in files],
        "scores": drawing.samples.scores.tolist(),
        "codes_scores": list(drawing.codes_scores),
        "trace": drawing.samples.trace.tolist(),
        "references": [{"image": item.image, "score": item.score} for item in drawing.references],
        "reference_score": drawing.reference_score,
        "matched": None if drawing.matched is None else drawing.matched._asdict(),
        "seconds": round(drawing.seconds, 3),
    }


def _write(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name and rename it."""
    part = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
