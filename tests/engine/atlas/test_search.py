import pytest

from engine.atlas.search import ConceptSearch

INDEX = ConceptSearch(
    ["red ring", "", "wood", "palm tree", "driftwood", "7 stars"],
    [["ring", "circle"], ["wood", "ring"], ["table"], ["palm", "beach"], ["beach"], []],
)


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("ring", [0, 1]),
        ("RING", [0, 1]),
        ("wood", [2, 1, 4]),
        ("beach palm", [3, 4]),
        ("circ", [0]),
        ("3", [3]),
        ("4 ring", [4, 0, 1]),
        ("7", [5]),
        ("nothing", []),
        ("  ", []),
        ("(*", []),
    ],
)
def test_the_best_match_comes_first(text, concepts):
    assert [match.concept for match in INDEX.find(text, 10)] == concepts


def test_count_limits_the_answer():
    assert len(INDEX.find("ring", 1)) == 1
    assert INDEX.find("ring", -1) == []
