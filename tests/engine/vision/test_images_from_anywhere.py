"""Images of every kind are read right or refused with the reason; memory stays bounded; resizing stays as it was."""

import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.errors import BlindspotError
from engine.vision import preprocess
from engine.vision.preprocess import ImageError, PixelBudget, fit, load_image, sniff_format, to_tensor
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec

CROP = EncoderSpec("x", None, None, 56, 14, (4, 4), 1, 8, "crop", "bicubic", IMAGENET_MEAN, IMAGENET_STD)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("spec", [CROP, replace(CROP, resize="square"), replace(CROP, interpolation="bilinear")])
@pytest.mark.parametrize(
    "size", [(640, 480), (1500, 1100), (64, 20000), (1300, 900), (1024, 1024), (20000, 64), (2000, 130)]
)
def test_resizing_in_bands_changes_no_bit(monkeypatch, spec: EncoderSpec, size: tuple[int, int]) -> None:
    monkeypatch.setattr(preprocess, "BAND_PIXELS", 30_000)
    monkeypatch.setattr(preprocess, "LONG", 10_000)
    image = noise(*size)
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).unsqueeze(0).float().div(255)
    assert torch.equal(to_tensor([image], spec), fit(whole, spec))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(1200, 4), (4, 1200), (3000, 30), (90, 1700), (200, 1), (2000, 100)])
def test_a_long_image_is_cropped_first_and_comes_out_the_same(size: tuple[int, int], interpolation: str) -> None:
    spec, image = replace(CROP, interpolation=interpolation), noise(*size)
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).unsqueeze(0).float().div(255)
    assert (to_tensor([image], spec) - fit(whole, spec)).abs().max() < 1e-3


def test_a_line_takes_no_memory() -> None:
    tracemalloc.start()
    assert to_tensor([Image.new("RGB", (60_000, 1), "red")], CROP).shape == (1, 3, 56, 56)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("top", [1.0, 255.0])
@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int32])
def test_ramps_of_every_depth_keep_their_levels(tmp_path: Path, kind: type, top: float) -> None:
    ramp = np.linspace(0, 1, 4096).reshape(64, 64)
    tops = [top] if kind is np.float32 else [255, 1023, 4095, 65535]
    for high in tops:
        Image.fromarray((ramp * high).astype(kind)).save(tmp_path / "ramp.tif")
        found = np.asarray(load_image(tmp_path / "ramp.tif"))
        assert len(np.unique(found)) > 200 and found.min() == 0 and found.max() == 255


@pytest.mark.parametrize(
    "values",
    [np.full((8, 8), np.nan, np.float32), np.full((8, 8), -3, np.float32), np.full((8, 8), 1.7, np.float32),
     np.full((8, 8), -5, np.int32), np.full((8, 8), 100_000, np.int32), np.full((8, 8), 3e9, np.float32)],
)  # fmt: skip
def test_values_of_unknown_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(ImageError, match="does not tell what is black") as caught:
        load_image(tmp_path / "odd.tif")
    assert caught.value.kind == "range of values not known"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_floats_are_never_silently_black(values: list[float]) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array(values, np.float32).reshape(2, 2)).save(file, "TIFF")
    file.seek(0)
    try:
        found = np.asarray(load_image(file))
    except ImageError:
        return
    assert found.max() > 0 or max(values) < 1 / 255


def test_a_raised_limit_is_honoured_and_pillows_own_is_no_damage(tmp_path: Path, monkeypatch) -> None:
    noise(64, 64).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(tmp_path / "a.png", max_pixels=5000).size == (64, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"more pixels than the limit of 50; .* raise limits\.max_pixels") as caught:
        load_image(tmp_path / "a.png", max_pixels=50)
    assert caught.value.kind == "too many pixels"


def test_long_texts_in_a_png_do_no_harm(tmp_path: Path) -> None:
    for megabytes, fine in ((3, True), (80, False)):
        info = PngImagePlugin.PngInfo()
        info.add_text("workflow", "x" * (megabytes << 20), zip=True)
        noise(8, 8).save(tmp_path / "a.png", pnginfo=info)
        if fine:
            assert load_image(tmp_path / "a.png").size == (8, 8)
        else:
            with pytest.raises(ImageError, match="carries more than 64 MB of text"):
                load_image(tmp_path / "a.png")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
UNREAD = [(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "PostScript")]
UNREAD += [(HEIC, "HEIC")] * ("HEIF" not in preprocess.image_formats())
UNREAD += [(b"\xff\x0a" + bytes(50), "JXL")] * ("JXL" not in preprocess.image_formats())


@pytest.mark.parametrize(("data", "name"), UNREAD)
@pytest.mark.parametrize("ending", ["png", "jpg", "heic"])
def test_formats_that_are_not_read_are_named(tmp_path: Path, data: bytes, name: str, ending: str) -> None:
    (tmp_path / f"x.{ending}").write_bytes(data)
    with pytest.raises(ImageError, match=f"is {name}, which is not read here"):
        load_image(tmp_path / f"x.{ending}")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])
def test_the_content_tells_the_format(kind: str) -> None:
    file = io.BytesIO()
    noise(8, 8).save(file, kind)
    assert sniff_format(file.getvalue()[:64]) == kind


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "AVIF"]), st.data())
def test_damaged_files_are_an_image_or_one_sentence(kind: str, data: st.DataObject) -> None:
    file = io.BytesIO()
    noise(16, 16).save(file, kind)
    raw = bytearray(file.getvalue())
    for at in data.draw(st.lists(st.integers(0, min(len(raw) - 1, 120)), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(1, len(raw))) :]
    try:
        assert load_image(io.BytesIO(bytes(raw)), max_pixels=4096).mode == "RGB"
    except BlindspotError as error:
        assert str(error).endswith(".")


def test_threads_hold_no_more_pixels_than_allowed() -> None:
    budget, held, most = PixelBudget(100), [0], [0]

    def use(pixels: int) -> None:
        with budget.share(pixels):
            held[0] += min(pixels, 100)
            most[0] = max(most[0], held[0])
            held[0] -= min(pixels, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [30, 70, 500, 10, 100, 60] * 30))
    assert most[0] <= 100 and budget.free == 100
