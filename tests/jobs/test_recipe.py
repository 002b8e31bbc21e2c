from pathlib import Path

import pytest
import yaml

from jobs.recipe import Recipe, dump_recipe, load_recipe
from jobs.stages import list_parts
from pipeline.errors import UserError

RECIPES = sorted((Path(__file__).parents[2] / "jobs" / "recipes").glob("*.yaml"))
MINIMAL = "name: a\nsources:\n  - kind: shapes\n"


def message_of(tmp_path, text, *changes):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(path, changes)
    assert error.value.exit_code == 2
    return str(error.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid(path, tmp_path):
    changes = [f"sources.0.path={tmp_path}"] if path.stem == "folder" else []
    assert load_recipe(path, changes).name


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\nsources:\n  - kind: shapes\n    sizes: 3\n",
         [":4: sources.0.sizes", "Allowed here: kind, name, num_records, size, seed"]),
        ("name: a\nsources:\n  - kind: shapes\n    size: big\n", [":4: sources.0.size", "'big'"]),
        ("name: a\nsources:\n  - kind: flickr\n", [":3: sources.0", "'folder', ", "'openmoji'"]),
        ("name: a\nsources:\n  - kind: folder\n    path: /not/here\n",
         [":4: sources.0.path", "there is no folder /not/here"]),
        (MINIMAL + "train:\n  model: {heads: 3, width: 64}\n", [":5: train.model", "heads"]),
        (MINIMAL + "duplicates: {semantic: 0.05}\n", [":4: duplicates", "another model in each"]),
        (MINIMAL + "duplicates: {perceptual: 6}\n", [":4: duplicates.perceptual", "less than 0.5"]),
        (MINIMAL + "select:\n  rules:\n    clip: {min: 1}\n",
         [":6: select.rules.clip", "clip_score"]),
        (MINIMAL + "unknown: 1\n", [":4: unknown", "Allowed here: name, description, sources"]),
        ("sources:\n  - kind: shapes\n", ["name", "Field required"]),
        ("name: a\nsources: []\n", [":2: sources", "at least 1"]),
        (MINIMAL + "  - kind: shapes\n", ["sources", "two sources are called 'shapes'"]),
        ("name: [\n", ["is not YAML"]),
        ("just text\n", ["holds no recipe"]),
    ],
)  # fmt: skip
def test_a_wrong_recipe_names_file_line_field_and_what_is_allowed(tmp_path, text, parts):
    message = message_of(tmp_path, text)
    assert message.startswith("/recipe.yaml")
    for part in parts:
        assert part in message


def test_all_mistakes_are_named_at_once(tmp_path):
    message = message_of(tmp_path, MINIMAL + "trainer: 1\nselekt: 2\n")
    assert len(message.splitlines()) == 2


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nope\.yaml cannot be read"):
        load_recipe(tmp_path / "nope.yaml")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("synthesis.limit", "not of the form key=value"),
        ("sources.4.size=3", "'4' is not the number of an entry (0 to 0)"),
        ("name.first=3", "'name' holds a single value"),
        ("train.stepz=3", "train.stepz: there is no such setting"),
        ("name=[", "is not YAML"),
    ],
)
def test_a_wrong_change_is_named(tmp_path, change, part):
    assert part in message_of(tmp_path, MINIMAL, change)


def test_changes_reach_into_sections_and_lists(load):
    recipe = load("sources.0.size=48", "synthesis.limit=7", "select.rules.clip_score.quantile=0.3")
    assert (recipe.sources[0].size, recipe.synthesis.limit) == (48, 7)
    assert recipe.select.rules["clip_score"].quantile == 0.3


def test_paths_are_relative_to_the_recipe(tmp_path):
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nsources:\n  - {kind: folder, path: pictures}\n")
    assert load_recipe(path).sources[0].path == tmp_path / "pictures"


def test_the_resolved_recipe_says_the_same_with_every_default(load):
    recipe = load("ingest.rows_per_part=17", "run.num_workers=3", "synthesis.limit=5")
    again = Recipe.model_validate(yaml.safe_load(dump_recipe(recipe)))
    assert again == recipe
    assert "max_pixels" in dump_recipe(recipe)


def test_the_former_name_of_a_setting_is_an_unknown_key_like_any_other(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    source = {"kind": "webdataset", "path": str(tmp_path), "captions": ["txt"]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "sources": [source]}))
    with pytest.raises(UserError) as error:
        load_recipe(tmp_path / "r.yaml")
    assert "sources.0.captions: there is no such setting. Allowed here: " in str(error.value)
    assert "caption_columns" in str(error.value)


def test_a_setting_that_a_change_has_made_wrong_is_blamed_on_the_change(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(UserError, match=r"^shards\.max_samples=0: shards\.max_samples: .*found 0"):
        load_recipe(path, ["shards.max_samples=0"])
    with pytest.raises(UserError, match=r"^shards=\{max_mb: 0\}: shards\.max_mb: "):
        load_recipe(path, ["shards={max_mb: 0}"])


@pytest.mark.parametrize(
    "change",
    [
        "synthesis.model=/no/where",
        "synthesis.templates=no-where",
        "rights.blocked_domains=no-where.txt",
        "score.heads={aesthetic: no-where.safetensors}",
        "text_tokenizer.weights=/no/where",
        "score.clip={kind: open_clip, model: /no/where}",
    ],
)
def test_a_file_that_a_recipe_names_must_be_there(tmp_path, change):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(UserError, match="there is no such file or folder"):
        load_recipe(path, [change])


def test_a_server_may_know_its_model_by_a_path_of_its_own(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    endpoint = "synthesis.endpoint={base_url: 'http://localhost:8000/v1'}"
    changes = ["synthesis.backend=openai", endpoint, "synthesis.model=/models/llm"]
    assert load_recipe(path, changes).synthesis.model == "/models/llm"


def test_sources_without_a_record_are_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    path = tmp_path / "recipe.yaml"
    path.write_text("name: a\nsources:\n  - {kind: folder, path: pictures}\n")
    with pytest.raises(UserError, match=f"nothing to read in {tmp_path / 'pictures'}"):
        list_parts(load_recipe(path), {})
