"""A rating study on disk: nothing is lost between processes, nothing is told before the end."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import BlindspotError
from engine.ratings.store import Group, Item, RatingStudy, create_study, find_studies, studies_folder

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path) -> RatingStudy:
    items = [Item(str(n // 2), (Group(f"method{n % 2}", "concept"),), {}, {}, b"image %d" % n) for n in range(40)]
    return create_study(tmp_path / "one.sqlite", "interpretability", items, {"atlas": "x"}, seed=3)


def test_each_rater_has_an_order_of_their_own_that_every_visit_repeats(study):
    again = RatingStudy.open(study.path)
    assert study.order("Ann") == again.order("Ann") != study.order("Bo")
    assert sorted(study.order("Ann")) == sorted(study.order("Bo")) and len(set(study.order("Ann"))) == 40


def test_a_rating_replaces_the_raters_own_earlier_one_alone(study):
    token = study.order("Ann")[0]
    study.rate("Ann", token, 2, "  a\n ball ")
    study.rate("Bo", token, 4)
    study.rate("Ann", token, 3, "two balls", 1.5)
    assert study.show(token, "Ann").before == (3, "two balls") and study.show(token, "Bo").before == (4, "")
    assert study.rated("Ann") == {token} and [tuple(one) for one in study.progress()] == [
        ("Ann", "person", 1),
        ("Bo", "person", 1),
    ]


@pytest.mark.parametrize("value", [0, 5, 2.0, True, "3", None, [1]])
def test_what_is_no_score_is_refused(study, value):
    with pytest.raises(BlindspotError, match="is no answer: choose among 1, 2, 3, 4"):
        study.rate("Ann", study.order("Ann")[0], value)
    assert study.rated("Ann") == set()


def test_nothing_is_rated_after_the_end_nor_by_nobody(study):
    token = study.order("Ann")[0]
    with pytest.raises(BlindspotError, match="has a name"):
        study.rate("  ", token, 1)
    with pytest.raises(LookupError):
        study.rate("Ann", "0" * 16, 1)
    study.end()
    with pytest.raises(BlindspotError, match="has ended"):
        study.rate("Ann", token, 1)
    assert RatingStudy.open(study.path).ended


RATE = """
import sys
from pathlib import Path
from engine.ratings.store import RatingStudy
study, rater = RatingStudy.open(Path(sys.argv[1])), sys.argv[2]
for token in study.order(rater):
    study.rate(rater, token, 1 + len(token) % 4, rater)
    print(token, flush=True)
"""


def test_two_processes_rate_at_once_and_a_killed_one_keeps_what_it_said(study):
    words = [sys.executable, "-c", RATE, str(study.path)]
    processes = [subprocess.Popen([*words, name], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in ("A", "B")]
    said = [processes[1].stdout.readline().strip() for _ in range(5)]
    processes[1].kill()
    processes[1].communicate()
    assert processes[0].wait(120) == 0 and len(processes[0].communicate()[0].split()) == 40
    assert study.rated("A") == set(study.order("A")) and set(said) <= study.rated("B")
    with closing(sqlite3.connect(study.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_names_tell_nothing_and_nothing_is_overwritten(study, tmp_path):
    item = Item("1", (Group("maco", "concept"),), {}, {}, b"x")
    with pytest.raises(BlindspotError, match="would tell raters of 'maco'"):
        create_study(tmp_path / "MACO-test.sqlite", "interpretability", [item], {})
    with pytest.raises(BlindspotError, match="There is a study at"):
        create_study(study.path, "interpretability", [item], {})
    with pytest.raises(BlindspotError, match="cannot be a study's name"):
        create_study(tmp_path / "a b.sqlite", "interpretability", [item], {})
    folder = studies_folder(tmp_path / "atlas")
    create_study(folder / "two.sqlite", "interpretability", [item], {})
    (folder / "answers.txt").touch()
    assert find_studies(tmp_path / "atlas") == ["two"] and find_studies(tmp_path / "none") == []


def test_what_is_no_study_is_one_sentence(study, tmp_path):
    with pytest.raises(BlindspotError, match="There is no rating study at"):
        RatingStudy.open(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(BlindspotError, match="cannot be used"):
        RatingStudy.open(tmp_path / "text.sqlite")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(BlindspotError, match="is no rating study"):
        RatingStudy.open(tmp_path / "other.sqlite")
    with closing(sqlite3.connect(study.path)) as connection, connection:
        connection.execute("UPDATE study SET value = ? WHERE key = 'protocol'", (json.dumps("later"),))
    with pytest.raises(BlindspotError, match="another version"):
        RatingStudy.open(study.path)


def test_a_rater_comes_back_in_any_case(study):
    study.rate("Ann", study.order("Ann")[0], 2)
    assert study.spelling(" ann ") == "Ann" and study.spelling("Bo") == "Bo"
