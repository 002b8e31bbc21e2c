"""Which guidance and which temperature a trained model draws best with.

    python -m tests.benchmarks.sampling RUN [--num 100] [--json]

For each way to draw: the share of trained pictures' codes that come back from their texts, and, of
a corpus with coloured shapes, the share of fresh captions whose pictures show what is said.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from jobs.recipe import read_resolved_recipe
from jobs.run import RECIPE_FILE
from jobs.training import shards_of_run
from pipeline.sources.shapes import ShapesSettings
from tests.benchmarks.result import Result, show
from trainer.evaluate.likelihood import pairs_of
from trainer.evaluate.shapes import fresh_pairs, judge
from trainer.generate.sample import draw, draw_codes
from trainer.generate.settings import PickSettings, SampleSettings
from trainer.run import load_run

SCALES = (1.0, 1.5, 2.0, 3.0)
PICKS = (
    PickSettings(temperature=0),
    PickSettings(temperature=0.5),
    PickSettings(),
    PickSettings(min_p=0.1),
)


def main() -> None:
    """Draw in every way, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--num", type=int, default=100, help="pictures of each way to draw")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    run = load_run(given.run)
    recipe = read_resolved_recipe(given.run / RECIPE_FILE)
    shapes = next((each for each in recipe.sources if isinstance(each, ShapesSettings)), None)
    trained = pairs_of(shards_of_run(run), "train", given.num)
    codes = np.stack([pair.codes for pair in trained])  # (n, h, w)
    results = []
    for scale, pick in product(SCALES, PICKS):
        settings = SampleSettings(cfg_scale=scale, image=pick)
        name = f"guidance {scale:g}, temperature {pick.temperature:g}, min-p {pick.min_p:g}"
        same = float((draw_codes(run, [pair.text for pair in trained], settings) == codes).mean())
        results.append(Result(name=f"{name}: codes given back", value=same, unit="share"))
        if shapes is not None:
            captions = [each for _, each in fresh_pairs(given.num, shapes, held_out=False)]
            right = judge(draw(run, captions, settings), captions)["all"].value
            results.append(Result(name=f"{name}: Shape-GenEval", value=right, unit="share"))
    show(results, as_json=given.json)


if __name__ == "__main__":
    main()
