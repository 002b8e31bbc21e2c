import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs import reference
from jobs.recipe import load_recipe
from jobs.training import train_model
from pipeline.errors import UserError
from tests.pipeline.sources.test_iconify import DOT, icons, pack

RECIPES = Path("jobs/recipes/reference")


def test_every_reference_has_a_recipe_that_loads(tmp_path):
    pack(tmp_path / "dots.tgz", icons(red_dot={"body": DOT}))
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(reference.NAMES)
    load_recipe(RECIPES / "shapes.yaml", [])
    load_recipe(RECIPES / "styles.yaml", [f"sources.0.path={tmp_path}"])


def test_an_unknown_reference_is_an_error_that_names_those_there_are(monkeypatch):
    monkeypatch.setattr("sys.argv", ["reference", "shapes", "faces"])
    with pytest.raises(SystemExit, match=r"no reference faces\. There are shapes, styles"):
        reference.main()


def test_icons_without_npm_are_an_error_that_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm fetches the icon sets"):
        reference.fetch_icons(Console(quiet=True))


def test_what_a_reference_gave_is_shown_in_the_documentation(
    tiny_recipe, made, tmp_path, monkeypatch
):
    run, sheet = tmp_path / "run", tmp_path / "sheet.png"
    train_model(
        load_recipe(tiny_recipe), made, run, fresh=False, console=Console(quiet=True)
    )  # fmt: skip
    sheet.write_bytes(b"a sheet")
    monkeypatch.chdir(tmp_path)
    reference.show("shapes", run, sheet, minutes=12.34)
    folder = tmp_path / "docs" / "reference" / "shapes"
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["minutes"] == 12.3
    assert "held_out" in figures
    reference.show("shapes", run, sheet, minutes=None)
    assert json.loads((folder / "figures.json").read_text()) == figures
    assert (folder / "sheet.png").read_bytes() == b"a sheet"
    assert "held out, averaged weights" in (folder / "curves.svg").read_text()
