import hashlib

from engine.atlas.storage import manifest


def test_every_file_but_the_header_is_listed(atlas):
    listed = manifest(atlas.path)
    assert listed == atlas.info.files
    on_disk = {path.relative_to(atlas.path).as_posix() for path in atlas.path.rglob("*") if path.is_file()}
    outside_thumbs = {rel for rel in on_disk if not rel.startswith("thumbs/")}
    assert outside_thumbs - {"atlas.json"} == listed.keys() - {"thumbs/0000/"}


def test_an_entry_is_the_files_hash_size_and_rows(atlas):
    content = (atlas.path / "images.parquet").read_bytes()
    entry = atlas.info.files["images.parquet"]
    assert (entry.sha256, entry.bytes, entry.rows) == (hashlib.sha256(content).hexdigest(), len(content), 72)
    assert atlas.info.files["thumbs/0000/"].rows == 72
    assert atlas.info.files["images.faiss"].rows is None


def test_renaming_a_thumbnail_changes_its_folders_hash(copy_path):
    before = manifest(copy_path)["thumbs/0000/"]
    (copy_path / "thumbs/0000/0000003.webp").rename(copy_path / "thumbs/0000/0000999.webp")
    after = manifest(copy_path)["thumbs/0000/"]
    assert (before.bytes, before.rows) == (after.bytes, after.rows)
    assert before.sha256 != after.sha256
