"""Stars, notes and kept selections: in a file beside the atlas, which looking does not make, nor any other replaces."""

import sqlite3
from contextlib import closing

import pytest

from engine.atlas.notes import LONGEST_NOTE, MOST_SELECTIONS, ConceptNote, Notes
from engine.errors import BlindspotError


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "atlas")


def test_what_is_written_is_read_by_others_and_taken_back(notes, tmp_path):
    assert notes.concept(3) == ConceptNote() and notes.starred() == [] and notes.selections() == {}
    assert not notes.path.exists()
    notes.write(7, ConceptNote(True, "a disc\nwith a hole"))
    notes.write(3, ConceptNote(True))
    notes.keep("  discs of\tno-disc ", "text=disc&model=no-disc")
    notes.keep("birds", "text=bird")
    other = Notes(tmp_path / "atlas")
    assert other.concept(7) == ConceptNote(True, "a disc\nwith a hole") and other.starred() == [3, 7]
    assert other.selections() == {"birds": "text=bird", "discs of no-disc": "text=disc&model=no-disc"}
    other.keep("birds", "text=feeder")
    other.write(3, ConceptNote())
    other.drop("discs of no-disc")
    assert notes.starred() == [7] and notes.selections() == {"birds": "text=feeder"}


def test_what_cannot_be_kept_is_one_sentence(notes):
    with pytest.raises(BlindspotError, match="keep it below"):
        notes.write(0, ConceptNote(False, "x" * (LONGEST_NOTE + 1)))
    for name in ("", "  ", "x" * 100, "a\x00b"):
        with pytest.raises(BlindspotError, match="needs a name"):
            notes.keep(name, "")
    for number in range(MOST_SELECTIONS):
        notes.keep(str(number), "")
    with pytest.raises(BlindspotError, match="remove one first"):
        notes.keep("another", "")
    notes.keep("3", "text=x")
    assert len(notes.selections()) == MOST_SELECTIONS


def test_another_s_file_or_a_link_is_neither_read_nor_written(notes, tmp_path):
    with closing(sqlite3.connect(notes.path)) as database:
        database.execute("CREATE TABLE concepts (concept INTEGER)")
        database.commit()
    for use in (notes.starred, lambda: notes.write(1, ConceptNote(True))):
        with pytest.raises(BlindspotError, match="no file of notes"):
            use()
    notes.path.write_bytes(b"plain text, which is no database" * 50)
    with pytest.raises(BlindspotError, match="no file of notes"):
        notes.starred()
    notes.path.unlink()
    notes.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlindspotError, match="is a link"):
        notes.write(1, ConceptNote(True))
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(BlindspotError, match="cannot be read from or written to"):
        Notes(tmp_path / "nowhere" / "atlas").write(1, ConceptNote(True))
