import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BlindspotError
from engine.samplers.generation import GenerationRequest
from engine.samplers.links import check_limits, parse_concepts, parse_settings, request_of, settings_text
from engine.samplers.registry import GUIDED, SAMPLERS


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(SAMPLERS)), st.integers(1, 16), st.integers(0, 2**31 - 1), st.integers(5, 250),
    st.integers(0, 2_000).map(lambda tenth: tenth / 100), st.integers(1, 128),
    st.lists(st.tuples(st.integers(0, 500), st.integers(-20, 20).map(lambda half: half / 2)), max_size=3),
)  # fmt: skip
def test_a_link_brings_back_everything_that_was_asked_for(method, count, seed, steps, strength, candidates, further):
    others, weights = tuple(one for one, _ in further), (1.0, *(weight for _, weight in further))
    asked = GenerationRequest(
        7,
        method,
        count,
        seed,
        others,
        weights if further else (),
        steps=steps,
        strength=strength,
        candidates=candidates,
    )
    found = parse_settings(settings_text(asked))
    assert found is not None
    again, set_weights = parse_concepts(found.pop("with", ""), found.pop("weight", 1.0))
    same = GenerationRequest(7, others=again, weights=set_weights, **found)
    ones = (1.0,) * len(asked.concepts)
    assert (same.weights or ones) == (asked.weights or ones)
    assert {**same.parameters(), "weights": ()} == {**asked.parameters(), "weights": ()}
    stored = asked.parameters() | ({"gradient": "raw"} if method in GUIDED else {})
    assert request_of(stored).parameters() == stored


def test_a_link_says_what_share_of_the_real_images_score_is_aimed_at():
    assert parse_settings(settings_text(GenerationRequest(7, match=True, level=0.5))) == {"match": True, "level": 0.5}


@pytest.mark.parametrize(
    "text", ["steps", "steps:", "steps:1e3", "strength:nan", "method:magic", "with:54*", "x:1", "a" * 500, "match:9"]
)
def test_any_other_text_is_no_link(text: str):
    assert parse_settings(text) is None


def test_what_is_out_of_range_is_said_in_words():
    check_limits({"steps": 250, "strength": 0.0, "count": 1})
    with pytest.raises(BlindspotError, match="Steps 999 is out of range, choose 5 to 250; Strength -1 is out of range"):
        check_limits({"steps": 999, "strength": -1.0})
    with pytest.raises(BlindspotError, match="“disc” is no concept: write numbers"):
        parse_concepts("54, disc")
