import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.atlas.loading import Pieces, load_concepts, load_energies, load_images
from engine.atlas.storage import read_table
from engine.errors import BlindspotError


def rewrite(root, name, change) -> None:
    path = root / f"{name}.parquet"
    pq.write_table(change(read_table(root, name)), path)


@pytest.mark.parametrize(
    ("name", "load"), [("concepts", load_concepts), ("images", load_images), ("energies", load_energies)]
)
def test_a_missing_row_is_damage(atlas, copy_path, name, load):
    rewrite(copy_path, name, lambda table: table.slice(1))
    with pytest.raises(BlindspotError, match=f"{name}.parquet is damaged .its ids are not 0 to"):
        load(copy_path, atlas.info)


def test_missing_labels_words_and_captions_are_empty_and_searchable(atlas, copy_path):
    def without(column, kind):
        return lambda table: table.set_column(
            table.schema.get_field_index(column), column, pa.nulls(table.num_rows, kind)
        )

    rewrite(copy_path, "concepts", without("words", pa.list_(pa.string())))
    rewrite(copy_path, "concepts", without("label", pa.string()))
    rewrite(copy_path, "images", without("caption", pa.string()))
    assert load_concepts(copy_path, atlas.info)["words"].tolist() == [[]] * 96
    assert set(load_concepts(copy_path, atlas.info)["label"]) == {""}
    assert set(load_images(copy_path, atlas.info)["caption"]) == {""}
    assert Pieces(copy_path, atlas.info).search.find("ring", 5) == []


def test_energies_in_any_row_order_are_the_same(atlas, copy_path):
    rewrite(copy_path, "energies", lambda table: table.sort_by([("sum", "descending")]))
    shuffled, straight = load_energies(copy_path, atlas.info), load_energies(atlas.path, atlas.info)
    assert all((shuffled[name].moments.sum == straight[name].moments.sum).all() for name in straight)


def test_a_piece_is_loaded_once(atlas):
    pieces = Pieces(atlas.path, atlas.info)
    assert pieces.concepts is pieces.concepts
    assert pieces.matrix("codes", "real") is pieces.matrix("codes", "real")
