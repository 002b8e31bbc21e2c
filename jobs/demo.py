"""`make demo`: from the OpenMoji drawings to a trained any-to-any model, on any machine."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from jobs import stopping
from jobs.command_series import run_commands
from pipeline.device import let_threads_sleep

_RECIPE = Path("jobs/recipes/demo.yaml")
_FOLDER = Path("demo")
_INTRODUCTION = """\
[bold]anymix demo[/bold]: from pictures and captions to a trained any-to-any model.
About 12 minutes on 2 cores:
  1  ingest      4,000 OpenMoji drawings with their names, and prose from Python's reference
  2  synthesize  SmolLM2-135M, run by vLLM, writes captions, styles and negatives for 200 of them,
                 and once more what the critics do not take
  3  filter      resolution, caption quality, duplicates, and a small CLIP trained on the corpus
  4  tokenize    a VQ tokenizer trained on the drawings, byte-level BPE for the texts
  5  shards      WebDataset tars for the streams text, image and mixed
  6  train       a decoder of 4 million parameters on text : image : mixed = 2 : 2 : 1, 4 minutes
  7  sample      pictures for texts and texts for pictures, held-out and trained ones
  8  report      the dataset card and a page that shows all of it
Ctrl-C stops it at any time; the same command goes on from there.
"""


def main() -> None:
    """Run the demo in this process, and leave it."""
    stopping.finish(run_demo)


def run_demo() -> int:
    """Run the commands of the README in their order, say where everything is; the exit code."""
    let_threads_sleep()
    console = Console(stderr=True, highlight=False)
    console.print(_INTRODUCTION, soft_wrap=True)
    started = time.monotonic()
    recipe, corpus, run = str(_RECIPE), str(_FOLDER / "corpus"), str(_FOLDER / "run")
    code = run_commands(
        [
            ["run", recipe, "--corpus", corpus],
            ["audit", corpus],
            ["train", recipe, "--corpus", corpus, "--out", run],
            ["sample", run, "--out", f"{run}/samples"],
            ["card", corpus],
            ["report", corpus, run],
        ],
        console,
    )
    if code:
        return code
    (shards,) = {path.parent for path in (_FOLDER / "corpus" / "shards").glob("*/manifest.json")}
    minutes = (time.monotonic() - started) / 60
    console.print(
        f"""
[bold]Done in {minutes:.1f} minutes.[/bold]
  report        {corpus}/report.html
  dataset card  {corpus}/README.md
  shards        {shards}
  sample sheet  {run}/samples/sheet.png

Try next:
  .venv/bin/anymix sample {run} "red apple" "flag of Japan" --out {_FOLDER}/mine
  .venv/bin/anymix status {corpus}
  .venv/bin/anymix run {recipe} --corpus {corpus} --set select.rules.clip_score.quantile=0.3
""",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    main()
