"""My image: an image that is brought, or one of the atlas's own, with its concepts, their deltas and its neighbours."""

import io

import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.errors import BlindspotError
from pages.widgets import uploads
from tests.app.conftest import DEMO
from tests.app.test_pages import html, opened, url

PAGE = "my_image"


@pytest.fixture(autouse=True)
def demo(use_atlas):
    use_atlas(DEMO)


def picture(image: int) -> bytes:
    buffer = io.BytesIO()
    Atlas.open(DEMO).image(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_of_the_atlas_shows_its_concepts_with_every_model_s_delta():
    shown = html(opened(PAGE, image="13"))
    assert "an orange flower and a black car in the sky" in shown and "image 13 of real" in shown
    assert shown.count("of its best real images") == 12 and "Of these concepts, at q < 0.05" in shown
    for model in Atlas.open(DEMO).models:
        assert f"<th>{model}</th>" in shown and f"Nearest images of {model}" in shown
    assert 'href="concept_map?' in shown and "my_image?image=" not in shown and 'href="?image=' in shown


def test_images_are_brought_looked_at_and_refused_in_a_sentence_each():
    app = opened(PAGE)
    assert "Or look at one of the atlas" in html(app)
    files = [("scene.png", picture(13), "image/png"), ("notes.png", b"no image", "image/png")]
    app.file_uploader[0].set_value(files).run()
    assert "upload" in url(app) and [len(error.value) > 20 for error in app.error] == [True]
    shown = html(app)
    assert "scene.png" in shown and "64 × 64 px" in shown and shown.count("of its best real images") == 12
    app.file_uploader[0].set_value([*files, ("next.png", picture(260), "image/png")]).run()
    assert not app.error and "next.png" in html(app)  # what was said of earlier files is not said again
    app.file_uploader[0].set_value(files).run()
    assert "next.png" in html(app)  # taking one away changes nothing
    again = html(opened(PAGE, upload=url(app)["upload"]))  # as a link in another tab, while it is kept
    assert "next.png" in again


def test_a_link_to_an_upload_that_is_gone_says_so():
    app = opened(PAGE, upload="0123456789abcdef")
    assert any("no longer kept" in caption.value for caption in app.caption)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n" + bytes(64), b"RIFF0000WEBP"])
def test_what_is_no_image_is_one_sentence(content):
    with pytest.raises(BlindspotError):
        uploads.keep(io.BytesIO(content))


def test_the_last_uploads_are_kept_at_a_bounded_size():
    keys = []
    for shade in range(uploads.KEPT + 2):
        buffer = io.BytesIO()
        Image.new("RGB", (2000 if shade == 3 else 20, 20), (shade, 0, 0)).save(buffer, "PNG")
        keys.append(uploads.keep(buffer))
    kept = [uploads.uploads().get(key) for key in keys]
    assert kept[0] is None and kept[-1] is not None and kept[3].size == (2000, 20)
    assert max(max(one.image.size) for one in kept if one) <= uploads.SIDE
