"""Reading, resizing and normalising of images."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from engine.errors import BlindspotError
from engine.vision.preprocess import fit, load_image, prepare, to_tensor
from engine.vision.pretrained import image_settings
from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec

CROP = EncoderSpec("x", None, None, 56, 14, (4, 4), 1, 8, "crop", "bicubic", IMAGENET_MEAN, IMAGENET_STD)
SQUARE = replace(CROP, resize="square")


def smooth_image(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + y / 17), np.cos(y / 11), np.sin((x - y) / 13)]
    return Image.fromarray((np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8))


def test_crop_agrees_with_the_authors_processor() -> None:
    image = smooth_image(150, 97)
    processor = hf.BitImageProcessorPil(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3,
        image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD,
    )  # fmt: skip
    theirs = torch.as_tensor(np.asarray(processor(image)["pixel_values"][0]))
    ours = prepare(to_tensor([image]), CROP)[0]
    assert (ours - theirs).abs().max() < 1.5 / 255 / min(IMAGENET_STD)  # they round to 8 bits in between


PROCESSORS = {
    "DINOv2": (hf.BitImageProcessorPil, {"size": {"shortest_edge": 256}, "crop_size": 224}),
    "ViT": (hf.ViTImageProcessorPil, {}),
    "CLIP": (hf.CLIPImageProcessorPil, {}),
    "SigLIP": (hf.SiglipImageProcessorPil, {}),
    "DeiT": (hf.DeiTImageProcessorPil, {}),
    "BEiT": (hf.BeitImageProcessorPil, {}),
    "ConvNeXt": (hf.ConvNextImageProcessorPil, {"size": {"shortest_edge": 224}, "crop_pct": 0.9, "resample": 3}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_are_prepared_as_the_processor_of_transformers_does(tmp_path: Path, name: str) -> None:
    kind, options = PROCESSORS[name]
    processor = kind(**options)
    processor.save_pretrained(tmp_path)
    found = image_settings(str(tmp_path), None)
    spec = EncoderSpec("x", None, None, patch=14, grid=(1, 1), prefix_tokens=1, dim=8, **vars(found))
    rng = np.random.default_rng(0)
    for width, height in ((640, 427), (300, 451), (97, 130)):
        image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        theirs = np.asarray(processor(image)["pixel_values"][0])
        ours = prepare(to_tensor([image], spec), spec)[0].numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(prepare(to_tensor([image], replace(spec, eight_bits=False)), spec)[0].numpy() - theirs).max() > 1e-3


def test_square_squeezes_the_whole_image() -> None:
    image = smooth_image(150, 97)
    theirs = np.asarray(image.resize((56, 56), Image.Resampling.BICUBIC)) / 255
    ours = fit(to_tensor([image]), SQUARE)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1.5 / 255


@pytest.mark.parametrize("spec", [CROP, SQUARE])
def test_images_of_the_right_size_are_not_resampled(spec: EncoderSpec) -> None:
    images = torch.rand(2, 3, 56, 56)
    assert fit(images, spec) is images
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    assert torch.equal(prepare(images, spec), (images - mean) / std)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (56, 300), (57, 56), (400, 90)])
@pytest.mark.parametrize("spec", [CROP, SQUARE])
def test_any_size_fits_and_stays_in_range(spec: EncoderSpec, height: int, width: int) -> None:
    fitted = fit(torch.rand(1, 3, height, width), spec)
    assert fitted.shape == (1, 3, 56, 56)
    assert fitted.min() >= 0
    assert fitted.max() <= 1


def test_gradient_reaches_the_image() -> None:
    images = torch.full((1, 3, 40, 80), 0.5, requires_grad=True)
    prepare(images, SQUARE).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().min() > 0


def test_wrong_shape_is_one_sentence() -> None:
    with pytest.raises(BlindspotError, match=r"shape \[batch, 3, height, width\], not \[3, 8, 8\]"):
        fit(torch.rand(3, 8, 8), SQUARE)


def test_mixed_sizes_are_cropped_one_by_one_with_a_spec() -> None:
    images = [smooth_image(150, 97), smooth_image(60, 80)]
    batch = to_tensor(images, CROP)
    assert batch.shape == (2, 3, 56, 56)
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, fit(to_tensor([image]), CROP)[0])


def test_mixed_sizes_become_a_common_square_without_a_spec() -> None:
    assert to_tensor([smooth_image(150, 97), smooth_image(60, 80)]).shape == (2, 3, 60, 60)
    assert to_tensor([smooth_image(50, 70)]).shape == (1, 3, 70, 50)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        Image.new("P", (4, 4), 0).save(tmp_path / "clear.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "clear.png")
    loaded = load_image(tmp_path / "clear.png")
    assert loaded.mode == "RGB"
    assert loaded.getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 128 * 256, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)


def test_uploads_are_read_from_open_files() -> None:
    file = io.BytesIO()
    smooth_image(8, 8).save(file, "PNG")
    file.seek(0)
    assert load_image(file).size == (8, 8)


def test_bad_files_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    smooth_image(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:600])
    for name in ("text.png", "half.jpg"):
        with pytest.raises(BlindspotError, match="cannot be read as an image"):
            load_image(tmp_path / name)
    with pytest.raises(BlindspotError, match="There is no image at"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(BlindspotError, match="64 x 64 pixels, more than the limit of 1,000"):
        load_image(tmp_path / "whole.jpg", max_pixels=1000)


def test_no_images_is_one_sentence() -> None:
    with pytest.raises(BlindspotError, match="There are no images"):
        to_tensor([])
