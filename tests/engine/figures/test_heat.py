import base64
import io

import numpy as np
from PIL import Image

from engine.figures.heat import heat_rgba, heat_sheet


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
