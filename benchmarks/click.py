"""How long a click on the map takes until the concept's card is drawn, in a real browser.

    python -m precompute benchmark click [--concepts 32000] [--clicks 30] [--atlas DIR]

Builds a synthetic atlas of 4 models unless one is given, starts the app, clicks dots all over the map and measures, in
the page, from the mouse button's release until the card shows that concept and every image of it is there. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from tests.app.serving import chromium, point, serving, wait_for_map

MODELS = ("base", "base-early", "no-disc", "woody")
WATCH = """(concept) => new Promise((resolve) => {
    window.addEventListener('mouseup', () => {
        const start = performance.now();
        const look = () => {
            const card = document.querySelector('.st-key-card .ba-kicker');
            const images = [...document.querySelectorAll('.st-key-card img')];
            const done = card?.textContent === `Concept ${concept}` && images.every((i) => i.complete);
            done ? resolve(performance.now() - start) : setTimeout(look, 4);
        };
        look();
    }, { once: true, capture: true });
    setTimeout(() => resolve(null), 10000);
})"""
HOVERED = "() => document.querySelector('.st-key-map .ba-gd')._hoverdata?.[0]?.customdata ?? null"


def isolated(page: object, clicks: int) -> list[int]:
    """Return concepts that no other dot covers on the screen, so that a click hits exactly them."""
    return page.evaluate(
        """(clicks) => {
            const gd = document.querySelector('.st-key-map .ba-gd'), { xaxis, yaxis } = gd._fullLayout;
            const seen = new Map(), { x, y } = gd.arrays[0], chosen = [];
            gd.concepts.forEach((c, i) => {
                const key = `${Math.round(xaxis.l2p(x[i]) / 8)},${Math.round(yaxis.l2p(y[i]) / 8)}`;
                seen.set(key, seen.has(key) ? null : c);
            });
            const alone = [...seen.values()].filter((c) => c !== null);
            for (let i = 0; i < clicks; i++) chosen.push(alone[Math.floor((i + 0.5) * alone.length / clicks)]);
            return [...new Set(chosen)];
        }""",
        clicks,
    )


def measure(address: str, clicks: int) -> dict:
    """Click and time; see the module's docstring."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.goto(f"{address}/concept_map")
        wait_for_map(page, 120_000)
        times, missed = [], 0
        for number, concept in enumerate(isolated(page, clicks + 2)):
            x, y = point(page, concept)
            page.mouse.move(x, y)
            page.wait_for_timeout(250)
            hit = page.evaluate(HOVERED)
            watching = page.evaluate_handle("([f, c]) => { window.taken = eval(f)(c); }", [WATCH, hit])
            page.mouse.click(x, y)
            taken = page.evaluate("() => window.taken") if hit is not None else None
            watching.dispose()
            if taken is None:
                missed += 1
            elif number >= 2:
                times.append(taken)
    return {
        "clicks": len(times),
        "missed": missed,
        "median_ms": round(float(np.median(times)), 1),
        "p95_ms": round(float(np.percentile(times, 95)), 1),
        "max_ms": round(float(np.max(times)), 1),
    }


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--concepts", type=int, default=32_000)
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--atlas", type=Path, help="measure on this atlas instead of a synthetic one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        atlas = options.atlas
        if atlas is None:
            from tests.synthetic import build_synthetic_atlas

            atlas = build_synthetic_atlas(Path(folder) / "atlas", concepts=options.concepts, pairs=300, models=MODELS)
        with serving(atlas, Path(folder)) as address:
            result = measure(address, options.clicks)
    print(json.dumps({"concepts": options.concepts, "models": len(MODELS), **result}))


if __name__ == "__main__":
    main()
