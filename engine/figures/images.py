"""Figures made of pixels: heat maps laid over thumbnails, and generated images as one captioned grid."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from engine.figures.style import GREY, HEAT_SCALE, sample_scale

HEAT_SIDE = 32
"""Pixels of one heat map; the browser scales it to the thumbnail."""
SIDE = 2
"""Images of a block across and down."""
TILE = 128
"""Side of an image in pixels."""
SEAM, GAP, MARGIN = 3, 20, 24
"""Pixels between the images of a block, between blocks, and around all of them."""
INK, FAINT, PAPER, EMPTY = "#1d1722", "#6d6472", "#ffffff", "#f1eef3"
MARK = "#b0861c"
TITLE, HEADING, CAPTION = 24, 17, 15
"""Sizes of the text in pixels."""
LEADING = 1.4
"""Height of a line of text, in units of its size."""


def heat_rgba(
    heat: Float[np.ndarray, "height width"], peak: float, side: int = HEAT_SIDE
) -> UInt8[np.ndarray, "side side 4"]:
    """Colour one heat map; transparent where the concept does not fire.

    Parameters
    ----------
    heat
        Patch codes, >= 0.
    peak
        The code drawn at full strength; larger values are clipped. One peak for all of a concept's images keeps them
        comparable.
    side
        Output size in pixels.
    """
    share = np.clip(np.asarray(heat, np.float32) / peak, 0, 1) if peak > 0 else np.zeros_like(heat, np.float32)
    smooth = Image.fromarray(share, mode="F").resize((side, side), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0.0, 1.0)
    rgba = np.empty((side, side, 4), np.uint8)
    rgba[..., :3] = np.round(sample_scale(HEAT_SCALE, share) * 255)
    rgba[..., 3] = np.round(share**0.6 * 255)
    return rgba


def heat_sheet(heats: list[Float[np.ndarray, "height width"]], peak: float) -> str:
    """Return one PNG with all heat maps in a column, as a ``data:`` URI; empty string for no heat maps."""
    if not heats:
        return ""
    column = np.concatenate([heat_rgba(heat, peak) for heat in heats], axis=0)
    buffer = io.BytesIO()
    Image.fromarray(column, mode="RGBA").save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Block:
    """A few images that belong together."""

    images: Sequence[Image.Image] = ()
    """Of any size, in reading order; those beyond `SIDE` x `SIDE` are left out. A single one fills the block, none
    leaves an empty square."""
    caption: str = ""
    """Below the images, one or more lines."""


@dataclass(frozen=True)
class Row:
    """Blocks side by side."""

    caption: str
    """Above the blocks."""
    blocks: Sequence[Block]


def image_grid(title: str, columns: Sequence[str], rows: Sequence[Row], tile: int = TILE) -> Image.Image:
    """Lay out blocks of 2 x 2 images on white ground.

    Parameters
    ----------
    title
        Above everything.
    columns
        A heading for each column of blocks; empty for none.
    rows
        One block per column each.
    tile
        Side of an image in pixels; smaller images are enlarged without smoothing, so that pixels stay pixels.
    """
    across = max(len(row.blocks) for row in rows)
    side = SIDE * tile + (SIDE - 1) * SEAM
    captions = [max(len(_lines(block.caption, side)) for block in row.blocks) for row in rows]
    headings = [_lines(heading, side, HEADING) for heading in columns]
    title_lines = _lines(title, across * (side + GAP) - GAP, TITLE)
    top = MARGIN + _height(len(title_lines), TITLE) + GAP // 2
    top += _height(max(map(len, headings), default=0), HEADING) + GAP // 4 * bool(headings)
    heights = [
        _height(bool(row.caption), HEADING) + side + GAP // 4 + _height(lines, CAPTION) + GAP
        for row, lines in zip(rows, captions, strict=True)
    ]
    sheet = Image.new("RGB", (2 * MARGIN + across * (side + GAP) - GAP, top + sum(heights) - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, MARGIN, MARGIN, title_lines, TITLE, INK)
    for column, lines in enumerate(headings):
        _write(pen, MARGIN + column * (side + GAP), top - GAP // 4 - _height(len(lines), HEADING), lines, HEADING, INK)
    for row, height in zip(rows, heights, strict=True):
        below = top
        if row.caption:
            _write(pen, MARGIN, top, [row.caption], HEADING, FAINT)
            below += _height(1, HEADING)
        for column, block in enumerate(row.blocks):
            left = MARGIN + column * (side + GAP)
            if not block.images:
                pen.rectangle((left, below, left + side - 1, below + side - 1), fill=EMPTY)
            _paste(sheet, block, left, below, tile, side)
            _write(pen, left, below + side + GAP // 4, _lines(block.caption, side), CAPTION, FAINT)
        top += height
    return sheet


def contact_sheet(
    title: str,
    how: str,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    marked: Sequence[bool],
    across: int = 10,
    tile: int = 96,
) -> Image.Image:
    """Lay out images on white ground, row by row, with a line below each.

    Parameters
    ----------
    title, how
        Above everything: what is shown, and how to read it.
    images
        Of any size, in reading order; smaller ones are enlarged without smoothing.
    captions
        One for each.
    marked
        Those with a bar below them.
    across, tile
        Images in a row, and the side of one in pixels.
    """
    width = across * (tile + SEAM) - SEAM
    lines, reading = _lines(title, width, HEADING), _lines(how, width)
    top = MARGIN + _height(len(lines), HEADING) + _height(len(reading), CAPTION) + GAP // 2
    row = tile + 2 * SEAM + _height(1, CAPTION) + GAP // 4
    sheet = Image.new("RGB", (2 * MARGIN + width, top + -(-len(images) // across) * row + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, MARGIN, MARGIN, lines, HEADING, INK)
    _write(pen, MARGIN, MARGIN + _height(len(lines), HEADING), reading, CAPTION, FAINT)
    for place, (image, caption, mark) in enumerate(zip(images, captions, marked, strict=True)):
        left, below = MARGIN + place % across * (tile + SEAM), top + place // across * row
        sheet.paste(_fitted(image, tile), (left, below))
        if mark:
            pen.rectangle((left, below + tile + 1, left + tile - 1, below + tile + SEAM), fill=MARK)
        _write(pen, left, below + tile + 2 * SEAM, [caption], CAPTION, FAINT)
    return sheet


def strip(images: Sequence[Image.Image], tile: int = 96) -> Image.Image:
    """Put images side by side; those larger than `tile` pixels are made smaller."""
    side = min(tile, max((max(image.size) for image in images), default=1))
    sheet = Image.new("RGB", (max(1, len(images) * (side + 1) - 1), side), GREY)
    for place, image in enumerate(images):
        sheet.paste(_fitted(image, side), (place * (side + 1), 0))
    return sheet


def _fitted(image: Image.Image, side: int) -> Image.Image:
    smooth = Image.Resampling.LANCZOS if max(image.size) > side else Image.Resampling.NEAREST
    return image.convert("RGB").resize((side, side), smooth)


def _paste(sheet: Image.Image, block: Block, left: int, top: int, tile: int, side: int) -> None:
    """Put a block's images onto the sheet."""
    size = side if len(block.images) == 1 else tile
    for place, image in enumerate(block.images[: SIDE * SIDE]):
        sheet.paste(_fitted(image, size), (left + place % SIDE * (tile + SEAM), top + place // SIDE * (tile + SEAM)))


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, lines: Sequence[str], size: int, colour: str) -> None:
    for number, line in enumerate(lines):
        pen.text((left, top + _height(number, size)), line, fill=colour, font=ImageFont.load_default(size))


def _height(lines: int, size: int) -> int:
    """Pixels of so many lines."""
    return round(lines * size * LEADING)


def _lines(text: str, width: int, size: int = CAPTION) -> list[str]:
    """Text broken into lines of at most `width` pixels where it has spaces; its own line breaks stay."""
    font, lines = ImageFont.load_default(size), []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
