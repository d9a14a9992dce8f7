import json
from dataclasses import replace

import numpy as np
import pytest

from engine.atlas.schema import AtlasInfo, Source, contained, index_dtype, thumb_file
from engine.errors import BlindspotError


def test_a_header_survives_json(atlas):
    document = json.loads(json.dumps(atlas.info.to_dict()))
    assert AtlasInfo.from_dict(document) == atlas.info


def test_a_newer_version_is_refused_by_name():
    with pytest.raises(BlindspotError, match="version 2, newer than the version 1 read here: update"):
        AtlasInfo.from_dict({"format": "blindspot-atlas", "version": 2})


def test_a_header_from_before_reasons_were_kept_is_read(atlas):
    document = {name: value for name, value in atlas.info.to_dict().items() if name != "left_out"}
    assert AtlasInfo.from_dict(document).left_out == {}


@pytest.mark.parametrize("document", [{}, [], {"format": "zarr", "version": 1}, None])
def test_other_json_is_no_atlas(document):
    with pytest.raises(BlindspotError, match="not the header of a blindspot-atlas"):
        AtlasInfo.from_dict(document)


@pytest.mark.parametrize(
    "change",
    [
        {"sources": [{"name": "real"}]},
        {"sources": 3},
        {"encoder": {}},
        {"files": {"a": 1}},
        {"delta": []},
        {"left_out": []},
        {"left_out": {"real": 3}},
        {"left_out": {"real": {"damaged": "3"}}},
        {"left_out": {"real": {"damaged": -1}}},
        {"left_out": {"real": {"damaged": True}}},
    ],
)
def test_a_damaged_header_is_one_sentence(atlas, change):
    with pytest.raises(BlindspotError):
        AtlasInfo.from_dict({**atlas.info.to_dict(), **change})


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 65, "a b"])
def test_a_source_name_is_a_plain_folder_name(name):
    with pytest.raises(BlindspotError, match="cannot be a folder name"):
        Source(name, "model", "label", 1)


def test_the_real_source_comes_first_and_once(atlas):
    with pytest.raises(BlindspotError, match="start with 'real'"):
        replace(atlas.info, sources=atlas.info.sources[::-1])
    with pytest.raises(BlindspotError, match="the one real source is named 'real'"):
        Source("photos", "real", "Photographs", 1)


def test_image_ranges_follow_each_other(atlas):
    assert [atlas.info.image_range(name) for name in ("real", "alpha", "beta")] == [
        range(0, 24),
        range(24, 48),
        range(48, 72),
    ]
    assert atlas.info.images == 72


def test_tokens_are_prefix_and_grid(atlas):
    assert (atlas.info.prefix_tokens, atlas.info.grid, atlas.info.tokens) == (5, (8, 8), 69)


def test_unknown_sources_are_named_with_the_choice(atlas):
    with pytest.raises(BlindspotError, match="no source 'gamma': choose one of real, alpha, beta"):
        atlas.info.source("gamma")


@pytest.mark.parametrize("rel", ["../a", "/etc/passwd", "a//b", "a/../../b", "..\\a", "C:/a", "", ".", "./a", "a/.."])
def test_paths_that_could_leave_the_atlas_are_not_contained(rel):
    assert not contained(rel)


@pytest.mark.parametrize("rel", ["codes/real/indptr.npy", "thumbs/0000/", "concepts.parquet", "a..b"])
def test_plain_relative_paths_are_contained(rel):
    assert contained(rel)


def test_thumbnails_are_sharded_by_thousands():
    assert thumb_file(12_345) == "thumbs/0012/0012345.webp"


def test_indices_take_two_bytes_while_they_can():
    assert (index_dtype(65_535), index_dtype(65_536)) == (np.uint16, np.uint32)
