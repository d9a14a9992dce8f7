import re

from engine.reports import ReportView, files
from engine.reports.citation import cite_concept


def test_a_citation_names_the_concept_its_number_and_the_fingerprints(atlas):
    found, row = cite_concept(atlas, 5, ReportView.of(atlas, model="beta")), atlas.delta("beta").loc[5]
    origin = files.atlas_origin(atlas, "concept")
    for text in (found.text, found.bibtex):
        assert origin["recipe fingerprint"][:12] in text and origin["content fingerprint"][:12] in text
        assert f"= {row['delta']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]" in text and "in beta" in text
    assert found.text.startswith("Concept 5") and "Blindspot Atlas 0." in found.text
    against = cite_concept(atlas, 5, ReportView.of(atlas, model="beta", reference="alpha")).text
    assert f"δ = {atlas.delta('beta', reference='alpha')['delta'][5]:.2f} " in against and "against alpha" in against


def test_bibtex_is_balanced_and_holds_no_command_of_a_label(atlas, monkeypatch):
    labels = atlas.shown_labels().copy()
    labels[5] = r"50 % {red} & \input{x} $1_2 #~^"
    monkeypatch.setattr(atlas, "shown_labels", lambda: labels)
    from engine.reports import base

    base.concept_table.cache_clear()
    bibtex = cite_concept(atlas, 5, ReportView.of(atlas, model="beta")).bibtex
    base.concept_table.cache_clear()
    plain = re.sub(r"\\[%{}&$_#]", "", bibtex)
    assert plain.count("{") == plain.count("}") and not re.search(r"[%&#]|\\input", plain)
    assert re.match(r"@misc\{blindspot-atlas-[0-9a-f]{12}-5,\n", bibtex)
