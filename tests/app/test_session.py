import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pages.widgets import session
from pages.widgets.plot import picked, picked_set
from pages.widgets.session import Known, View

KNOWN = Known(
    models=("alpha", "beta", "gamma"),
    concepts=50,
    images=90,
    temperatures={"gap": 0.8, "relative": 0.4, "share": 1.0},
    clusters=("0", "3"),
)
DEFAULT = session.default_view(KNOWN)


def test_an_empty_url_is_the_default_view_and_writes_nothing():
    assert session.read({}, KNOWN) == DEFAULT
    assert session.write(DEFAULT, KNOWN) == {}


@pytest.mark.parametrize(
    ("name", "bad"),
    [("concept", "50"), ("concept", "-1"), ("concept", "1e3"), ("image", "90"), ("model", "delta"), ("q", "nan"),
     ("temperature", "0"), ("temperature", "inf"), ("status", "odd"), ("models", ""), ("job", "a/b"), ("top", "5"),
     ("colour", "Delta"), ("low", "0.9"), ("text", "a\nb"), ("concept", "²"),
     ("cluster", "9"), ("within", "beta:0.2:0.1"), ("ids", "50"), ("ids", "~zz"),
     ("sort", "of:odd"), ("start", "-1")],
)  # fmt: skip
def test_what_does_not_fit_falls_back(name: str, bad: str):
    assert session.read({name: bad}, KNOWN) == DEFAULT


def test_a_view_survives_its_url():
    view = View(model="beta", concept=7, image=3, estimator="share", temperature=1.5, low=0.2, high=0.8,
                colour="cluster", status=("suppressed", "exaggerated"), frequency=0.01, q=0.05, text="red disc",
                cluster=("3",), within=("beta:0.1:0.2", "alpha:relative:-1:0"), ids="1.2.3", sort="-of:beta", start=24,
                side="both", top=36, models=("gamma", "alpha"), job="0123abcd")  # fmt: skip
    assert session.read(session.write(view, KNOWN), KNOWN) == view


def test_what_does_not_fit_is_named_and_what_fits_is_not():
    params = {
        "model": "nope",
        "concept": "999",
        "models": "beta,nobody",
        "estimator": "share",
        "other": "1",
        "text": "",
    }
    assert session.misfits(params, KNOWN) == {"model": "nope", "concept": "999", "models": "nobody"}
    assert session.misfits({"models": "gamma,alpha", "status": "neutral", "concept": "49"}, KNOWN) == {}


def test_each_estimator_has_its_own_default_temperature():
    view = session.read({"estimator": "relative"}, KNOWN)
    assert view.temperature == 0.4
    assert session.write(view, KNOWN) == {"estimator": "relative"}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(list(View.__dataclass_fields__)), st.text(max_size=20)))
def test_reading_never_fails_and_what_was_read_is_stable(params: dict[str, str]):
    view = session.read(params, KNOWN)
    assert session.read(session.write(view, KNOWN), KNOWN) == view


@pytest.mark.parametrize(
    ("event", "concept"),
    [({"concept": 12}, 12), (3.0, 3), (None, None), ({}, None), (True, None), (-1, None), ("5", None)],
)
def test_a_click_becomes_a_concept(event: object, concept: int | None):
    assert picked(event) == concept


@pytest.mark.parametrize(
    "event", [None, {}, {"bits": 3}, {"bits": ""}, {"bits": "AAAA"}, {"bits": "!!!!!!!!!!!!"}, "all"]
)
def test_what_is_no_set_of_concepts_selects_nothing(event: object):
    assert picked_set(event, 50) is None


def test_the_bits_of_a_figure_become_a_set():
    assert picked_set({"bits": "gAAAAAAAAA=="}, 50).nonzero()[0].tolist() == [0]
