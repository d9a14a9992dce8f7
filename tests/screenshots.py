"""Pictures of every page, 1400 and 390 pixels wide, light and dark: `make screenshots`, or for some pages of an atlas

    python -m tests.screenshots --atlas data/demo/atlas --out tests/artifacts/pages compare generate

They are to be looked at; no test reads them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from engine.atlas import Atlas
from engine.figures.tables import most_different
from engine.reports.base import ReportView, view_table
from tests.app.serving import ARTIFACTS, ROOT, chromium, serving, settled

WIDTHS, SCHEMES = (1400, 390), ("light", "dark")
TALLEST = 6_000
"""Pixels of a page that are shown."""


def addresses(atlas: Atlas) -> dict[str, str]:
    """Return the address of every page by its name, each in the state that shows most."""
    models = atlas.models
    view = ReportView.of(atlas, model=models[-1])
    concept = int(most_different(view_table(atlas, view), "suppressed", 1).index[0])
    chosen = f"model={models[-1]}&concept={concept}"
    against = f"&reference={models[0]}&models={','.join(models[1:5])}" if len(models) > 1 else ""
    pages = ("blindspots", "pairs", "composition", "dictionary", "theory", "samplers", "ratings", "about")
    return {
        "overview": "", "concept_map": f"concept_map?model={models[-1]}", "card": f"concept_map?{chosen}",
        "my_image": "my_image?image=0", "generate": "generate", "generate_concept": f"generate?{chosen}",
        "compare": f"compare?{chosen}", "compare_models": f"compare?concept={concept}{against}",
        "invariance": f"invariance?{chosen}", **{page: page for page in pages},
    }  # fmt: skip


def main() -> None:
    """Take them all, or those of the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names of pages; all when none is given")
    parser.add_argument("--atlas", type=Path, default=ROOT / "data" / "demo" / "atlas")
    parser.add_argument("--out", type=Path, default=ARTIFACTS / "pages")
    given = parser.parse_args()
    known = addresses(Atlas.open(given.atlas))
    if unknown := set(given.pages) - set(known):
        parser.error(f"there is no page {', '.join(sorted(unknown))}: choose {', '.join(known)}")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as results, serving(given.atlas, Path(results)) as server, chromium() as browser:
        for scheme in SCHEMES:
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
                page.set_default_timeout(120_000)
                for name in given.pages or known:
                    page.set_viewport_size({"width": width, "height": 1000})
                    page.goto(f"{server}/{known[name]}")
                    settled(page)
                    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
                    page.set_viewport_size({"width": width, "height": min(height + 20, TALLEST)})
                    settled(page)
                    page.wait_for_timeout(500)
                    page.screenshot(path=given.out / f"{name}_{width}_{scheme}.png")
                page.close()
    print(given.out)


if __name__ == "__main__":
    main()
