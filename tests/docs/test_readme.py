"""The README against the code."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from jobs.recipe import load_recipe
from pipeline.sources import SOURCE_KINDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_recipe_that_is_explained_is_the_demos():
    assert (
        blocks("yaml")[0].strip() == (ROOT / "jobs" / "recipes" / "demo.yaml").read_text().strip()
    )


def test_your_own_pictures_in_five_lines_is_a_recipe(tmp_path):
    recipe = yaml.safe_load(blocks("yaml")[1])
    recipe["sources"][0]["path"] = str(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(recipe))
    assert load_recipe(tmp_path / "my.yaml").sources[0].licence == "CC-BY-4.0"


def test_the_recipe_of_a_table_is_one(tmp_path):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "my.yaml").write_text(blocks("yaml")[2])
    assert load_recipe(tmp_path / "my.yaml").sources[0].caption_columns == ("en", "de")


def test_the_recipe_of_an_endpoint_is_one(tmp_path):
    head = "name: served\nsources:\n  - kind: shapes\n"
    (tmp_path / "my.yaml").write_text(head + blocks("yaml")[3])
    assert load_recipe(tmp_path / "my.yaml").synthesis.endpoint.concurrency == 32


def test_every_kind_of_source_is_in_the_readme():
    table = README.split("## Other sources")[1].split("## ")[0]
    assert all(f"**{kind}**" in table for kind in SOURCE_KINDS)


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"^    anymix (\w+)", README, re.MULTILINE)))
)
def test_every_command_of_the_readme_exists(command):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_every_command_is_in_the_readme():
    groups = {"": app, **{f"{each.name} ": each.typer_instance for each in app.registered_groups}}
    for group, commands in groups.items():
        for command in commands.registered_commands:
            name = command.name or command.callback.__name__
            assert f"    anymix {group}{name} " in README


@pytest.mark.parametrize("target", ["demo", "test"])
def test_every_make_target_of_the_readme_exists(target):
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_every_file_that_the_readme_links_to_exists():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_folder_of_the_readme_exists():
    for folder in re.findall(r"^\| `([\w/.]+)`", README, re.MULTILINE):
        if not folder.startswith("demo/"):
            assert (ROOT / folder).exists(), folder
