"""The grid of 2 x 2 blocks has every image in its place; heat maps are comparable and transparent where silent."""

import base64
import io

import numpy as np
from PIL import Image, ImageFont

from engine.figures.images import (
    CAPTION,
    GAP,
    MARGIN,
    SEAM,
    TILE,
    Block,
    Row,
    _lines,
    heat_rgba,
    heat_sheet,
    image_grid,
)

COLOURS = ("#ff0000", "#00ff00", "#0000ff", "#ffff00", "#00ffff")
SIDE = 2 * TILE + SEAM


def squares(*colours: str, size: int = 16) -> list[Image.Image]:
    return [Image.new("RGB", (size, size), colour) for colour in colours]


def boxes(picture: Image.Image, colour: str) -> list[tuple[int, int, int, int]]:
    """The box around all pixels of a colour."""
    wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
    rows, columns = np.nonzero((np.asarray(picture) == wanted).all(axis=-1))
    return [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)] if len(rows) else []


def test_four_images_make_a_block_in_reading_order_and_a_fifth_is_left_out():
    picture = image_grid("title", ["a"], [Row("row", [Block(squares(*COLOURS), "caption")])])
    (left, top, right, bottom), second, third, fourth = (boxes(picture, colour)[0] for colour in COLOURS[:4])
    assert left == MARGIN and right - left == bottom - top == TILE
    assert second == (left + TILE + SEAM, top, right + TILE + SEAM, bottom)
    assert third == (left, top + TILE + SEAM, right, bottom + TILE + SEAM)
    assert fourth == (second[0], third[1], second[2], third[3])
    assert boxes(picture, COLOURS[4]) == []


def test_one_image_fills_its_block_and_none_leaves_an_empty_square():
    picture = image_grid("", ["a", "b"], [Row("", [Block(squares("#ff0000")), Block()])])
    (left, top, right, bottom) = boxes(picture, "#ff0000")[0]
    assert right - left == bottom - top == SIDE
    assert boxes(picture, "#f1eef3") == [(left + SIDE + GAP, top, right + SIDE + GAP, bottom)]
    assert picture.width == 2 * MARGIN + 2 * SIDE + GAP


def test_rows_lie_below_each_other_and_text_is_drawn():
    rows = [Row("first", [Block(squares("#ff0000"), "one\ntwo")]), Row("second", [Block(squares("#00ff00"))])]
    picture = image_grid("title", [], rows)
    above, below = boxes(picture, "#ff0000")[0], boxes(picture, "#00ff00")[0]
    assert below[1] - above[3] > 2 * CAPTION and picture.height >= below[3] + MARGIN
    between = np.asarray(picture.convert("L"))[above[3] : below[1]]
    assert (between < 160).any(), "no caption"


def test_captions_break_where_their_column_ends():
    text = "the mean score is out of reach, the largest that was reached lies far below it\nand more"
    lines = _lines(text, 150)
    font = ImageFont.load_default(CAPTION)
    assert " ".join(lines) == text.replace("\n", " ") and lines[-1] == "and more"
    assert all(font.getlength(line) <= 150 for line in lines) and len(lines) > 3


def test_small_images_keep_their_pixels():
    checks = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("RGB")
    picture = np.asarray(image_grid("", [], [Row("", [Block([checks] * 4)])]))
    block = picture[MARGIN : MARGIN + 2 * SIDE, MARGIN : MARGIN + TILE, 0]
    assert set(np.unique(block[-TILE - GAP : -GAP])) <= {0, 255}


def test_nothing_is_painted_where_the_concept_is_silent():
    heat = np.zeros((8, 8))
    heat[1, 6] = 2.0
    rgba = heat_rgba(heat, peak=2.0, side=64)
    row, column = np.unravel_index(rgba[..., 3].argmax(), (64, 64))
    assert abs(row - 12) <= 4 and abs(column - 52) <= 4
    assert rgba[40:, :30, 3].max() == 0


def test_one_peak_keeps_images_comparable():
    weak, strong = heat_rgba(np.full((4, 4), 0.5), 2.0), heat_rgba(np.full((4, 4), 2.0), 2.0)
    assert weak[..., 3].max() < strong[..., 3].min() == 255


def test_a_silent_concept_has_no_peak_and_no_colour():
    assert heat_rgba(np.zeros((4, 4)), 0.0)[..., 3].max() == 0


def test_the_sheet_is_a_column_of_tiles():
    uri = heat_sheet([np.eye(4)] * 3, 1.0)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert picture.size[1] == 3 * picture.size[0] and picture.mode == "RGBA"
    assert heat_sheet([], 1.0) == ""
