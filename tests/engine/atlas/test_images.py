import faiss
import numpy as np
import pytest

from engine.atlas.search import ImageIndex
from engine.atlas.storage import decode_thumb, read_thumb
from engine.errors import BlindspotError


@pytest.fixture
def index(atlas_path):
    return ImageIndex(atlas_path, 72)


def test_the_nearest_images_are_those_of_the_dense_cosine_matrix(index):
    vectors = np.stack([index.vector(image) for image in range(72)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    query = np.random.default_rng(0).normal(size=index.dim)
    cosine = vectors @ (query / np.linalg.norm(query))
    within = range(24, 48)
    expected = 24 + np.argsort(-cosine[24:48])[:5]
    hits = index.search(query, within, 5)
    assert hits.images.tolist() == expected.tolist()
    np.testing.assert_allclose(hits.similarities, cosine[expected], rtol=1e-5)


def test_a_query_leaves_the_thread_count_as_it_was(index):
    before = faiss.omp_get_max_threads()
    index.search(np.ones(index.dim), range(72), 1)
    assert faiss.omp_get_max_threads() == before


def test_more_images_than_there_are_gives_all_of_them(index):
    assert len(index.search(np.ones(index.dim), range(24), 500).images) == 24
    assert len(index.search(np.ones(index.dim), range(24), 0).images) == 0


@pytest.mark.parametrize("query", [np.ones(3), np.full(32, np.nan)])
def test_a_query_of_another_kind_is_refused(index, query):
    with pytest.raises(BlindspotError, match="no vector of 32 finite numbers"):
        index.search(query, range(72), 1)


def test_an_atlas_without_index_says_so(tmp_path):
    with pytest.raises(BlindspotError, match="cannot search by image"):
        ImageIndex(tmp_path, 1)


def test_an_index_of_something_else_is_damage(atlas_path, copy_path):
    with pytest.raises(BlindspotError, match="holds 72 images instead of 71"):
        ImageIndex(atlas_path, 71)
    (copy_path / "images.faiss").write_bytes(b"nonsense")
    with pytest.raises(BlindspotError, match="FAISS cannot read it"):
        ImageIndex(copy_path, 72)


def test_a_thumbnail_comes_back_as_bytes_and_picture(atlas_path):
    assert read_thumb(atlas_path, 3)[8:12] == b"WEBP"
    assert (decode_thumb(atlas_path, 3).mode, decode_thumb(atlas_path, 3).size) == ("RGB", (96, 96))


def test_missing_and_broken_thumbnails_are_one_sentence(copy_path):
    (copy_path / "thumbs/0000/0000001.webp").unlink()
    (copy_path / "thumbs/0000/0000002.webp").write_bytes(b"RIFF no picture")
    with pytest.raises(BlindspotError, match=r"0000001\.webp is missing"):
        decode_thumb(copy_path, 1)
    with pytest.raises(BlindspotError, match=r"0000002\.webp is damaged"):
        decode_thumb(copy_path, 2)
