from pathlib import Path

import pytest
import yaml

from jobs.recipe import Recipe, dump_recipe, load_recipe, read_resolved_recipe
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
        ("name: a\nsources:\n  - kind: flickr\n",
         [":3: sources.0.kind", "there is no 'flickr'. Allowed here: folder, "]),
        ("name: a\nsources:\n  - size: 8\n", [":3: sources.0.kind", "has to be given. Allowed"]),
        ("name: a\nsources:\n  - shapes\n",
         [":3: sources.0: Input should be a section of `key: value` lines (found 'shapes')"]),
        (MINIMAL + "image_tokenizer: vq\n",
         [":4: image_tokenizer: Input should be a section of `key: value` lines (found 'vq')"]),
        (MINIMAL + "image_tokenizer: {kind: vq}\n",
         [":4: image_tokenizer.kind: it is trained (on the corpus), ", ": janus, llamagen, "]),
        (MINIMAL + "audio_tokenizer: {kind: dac}\n",
         [":4: audio_tokenizer.kind: it is trained (on the corpus), ", ": encodec, mimi"]),
        (MINIMAL + "score: {clip: large}\n",
         [":4: score.clip: Input should be a section of `key: value` lines (found 'large')"]),
        ("name: a\nsources:\n  - kind: folder\n    path: /not/here\n",
         [":4: sources.0.path", "there is no folder /not/here"]),
        (MINIMAL + "train:\n  model: {heads: 3, width: 64}\n", [":5: train.model", "heads"]),
        (MINIMAL + "duplicates: {semantic: 0.05}\n", [":4: duplicates", "another model in each"]),
        (MINIMAL + "duplicates: {perceptual: 6}\n", [":4: duplicates.perceptual", "less than 0.5"]),
        (MINIMAL + "select:\n  rules:\n    clip: {min: 1}\n",
         [":6: select.rules.clip", "clip_score"]),
        (MINIMAL + "unknown: 1\n", [":4: unknown", "Allowed here: name, description, sources"]),
        ("sources:\n  - kind: shapes\n", [":1: name: it has to be given: there is no default"]),
        ("name: a\nsources: []\n", [":2: sources", "at least 1"]),
        (MINIMAL + "  - kind: shapes\n", ["sources", "two sources are called 'shapes'"]),
        ("name: [\n", [":2: ", "is not YAML"]),
        ("just text\n", ["holds no recipe"]),
        ("- a\n", ["holds no recipe"]),
        ("", ["holds no recipe"]),
        (MINIMAL + "name: b\n", [":4: name", "twice, in line 1 and here"]),
        (MINIMAL + "train: {model: {heads: 2, heads: 3}}\n",
         [":4: train.model.heads: the key is there twice"]),
        ("name: a\nsources:\n  - {kind: shapes, size: 8, size: 9}\n",
         [":3: sources.0.size: the", "twice"]),
        (MINIMAL + "---\nname: b\n", [":5: a second document"]),
        ("name: a\nsources:\n\t- kind: shapes\n", [":3: ", "a tab; YAML indents with spaces"]),
        ("name: a\0b\n", [":1: ", "not YAML", "U+0000"]),
        (MINIMAL + "train: !!python/object:os.system {}\n", [":4: ", "not YAML", "tag"]),
        (MINIMAL + "train: &a [*a]\n", [":4: ", "an alias leads back to itself"]),
        (MINIMAL + "train: " + "[" * 2000, ["nested too deeply"]),
        (MINIMAL + "train: *nothing\n", [":4: ", "undefined alias"]),
        (MINIMAL + "1: a\n", [":4: ", "a key should be a text (found 1, ", "quotes: '1'"]),
        (MINIMAL + "? [a]\n: b\n", [":4: ", "cannot be a key"]),
        ("name: no\nsources:\n  - kind: shapes\n",
         [":1: name", "found no, which YAML reads as a truth value; a text has quotes: 'no'"]),
        (MINIMAL + "description: 12\n", [":4: description", "reads as a number", "'12'"]),
        (MINIMAL + "duplicates: {prefer_licences: [1, CC0]}\n",
         [":4: duplicates.prefer_licences.0", "reads as a number", "'1'"]),
        (MINIMAL + "duplicates: {prefer_licences: CC0}\n", ["should be a list: [one, two]"]),
        (MINIMAL + "train:\n", [":4: train", "should be a section of `key: value` lines"]),
        (MINIMAL + "run: {timeout_s: 1:30}\n", [":4: run.timeout_s", "found '1:30'"]),
        (MINIMAL + "run: {num_workers: yes}\n", [":4: run.num_workers", "a number (found True)"]),
        (MINIMAL + "synthesis: {shares: {caption: on}}\n", [":4: synthesis.shares.caption"]),
        (MINIMAL + "run: {timeout_s: .inf}\n", [":4: run.timeout_s", "a finite number"]),
        (MINIMAL + "ingest: {validation_share: .nan}\n", [":4: ", "a finite number"]),
        (MINIMAL + "ingest: {validation_share: -0.1}\n", [":4: ", "greater than or equal to 0"]),
        ("name: a\nsources:\n  - {kind: folder, path: no}\n", [":3: sources.0.path", "'no'"]),
        ("name: a\nsources:\n  - {kind: folder, path: $NO_SUCH_NAME/x}\n",
         [":3: sources.0.path", "no variable NO_SUCH_NAME"]),
        ("name: a\nsources:\n  - {kind: folder, path: ~nobody-here/x}\n", [":3: sources.0.path"]),
        (f"name: a\nsources:\n  - {{kind: folder, path: {'x' * 300}}}\n", ["name too long"]),
        (MINIMAL + "synthesis: {styles: .}\n", [":4: ", "a file should be there"]),
        (MINIMAL + "synthesis: {templates: recipe.yaml}\n", [":4: ", "a folder should be there"]),
    ],
)  # fmt: skip
def test_a_wrong_recipe_names_file_line_field_and_what_is_allowed(tmp_path, text, parts):
    message = message_of(tmp_path, text)
    assert message.startswith("/recipe.yaml")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "name",
    [
        "laion/coco",
        "../x",
        "..",
        "",
        " ",
        "a\\\\b",
        "a\\0b",
        "a\\nb",
        "a ",
        "a*",
        "x" * 101,
        "\u00e9" * 51,
    ],
)
def test_a_name_that_no_file_can_begin_with_is_refused(tmp_path, name):
    source = f'name: a\nsources:\n  - {{kind: shapes, name: "{name}"}}\n'
    assert ":3: sources.0.name: a name" in message_of(tmp_path, source)


@pytest.mark.parametrize(
    "name", ["CON", "laion-coco", "my pictures (2)", "B\u00e4ume", "\u732b", "_a", "7"]
)
def test_a_name_that_a_file_can_begin_with_is_taken(tmp_path, name):
    path = tmp_path / "recipe.yaml"
    path.write_text(f'name: a\nsources:\n  - {{kind: shapes, name: "{name}"}}\n')
    assert load_recipe(path).sources[0].name == name


def test_aliases_of_aliases_are_refused_before_they_are_read(tmp_path):
    lines = ["name: a", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "with its aliases this has over 100,000 values" in message_of(tmp_path, "\n".join(lines))
    merged = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    assert "aliases" in message_of(tmp_path, "\n".join(["a0: &a0 {x: 1}", *merged]))


def test_anchors_and_merged_keys_say_what_they_mean(tmp_path):
    lines = "sources:\n  - &a {kind: shapes, size: 16}\n  - {<<: *a, name: b, size: 24}\nname: a\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(lines)
    assert [source.size for source in load_recipe(path).sources] == [16, 24]
    changed = load_recipe(path, ["sources.0.size=48"])
    assert [source.size for source in changed.sources] == [48, 24]
    assert ":3: sources.1.size" in message_of(tmp_path, lines.replace("24", "big"))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_recipe_is_read_in_every_encoding_that_says_so_itself(tmp_path, codec, end):
    path = tmp_path / "recipe.yaml"
    path.write_bytes((MINIMAL.replace("\n", end) + "description: gr\u00fcn").encode(codec))
    assert load_recipe(path).description == "gr\u00fcn"


def test_a_recipe_in_another_encoding_names_line_and_byte(tmp_path, fault):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: a\n# gr\xfcn\nsources: [{kind: shapes}]\n")
    with pytest.raises(UserError, match=r"recipe\.yaml:2: the byte 0xfc is not UTF-8") as error:
        load_recipe(path)
    assert "Save the file as UTF-8" in error.value.hint
    sees = str(error.value).replace(str(tmp_path), "")
    fault("a recipe is in another encoding than UTF-8 or UTF-16", f"exit code 2: {sees}")


def test_a_key_that_is_there_twice_is_told_of(tmp_path, fault):
    message = message_of(tmp_path, MINIMAL + "run: {num_workers: 1}\nrun: {timeout_s: 1}\n")
    fault("a recipe says something twice", f"exit code 2: {message}")


def test_what_is_no_file_or_no_text_is_no_recipe(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(range(256)))
    (tmp_path / "large").write_bytes(b"a" * 5_000_000)
    for name, part in (("", "s a directory"), ("a.jpg", "is not UTF-8"), ("large", "has over")):
        with pytest.raises(UserError, match=part) as error:
            load_recipe(tmp_path / name)
        assert error.value.exit_code == 2


def test_the_resolved_recipe_of_a_corpus_is_read_as_strictly(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: a\xfc\n")
    with pytest.raises(UserError, match="0xfc is not UTF-8"):
        read_resolved_recipe(path)
    path.write_text("name: a\nname: b\n")
    with pytest.raises(UserError, match="twice"):
        read_resolved_recipe(path)


def test_numbers_and_texts_are_what_people_write(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        MINIMAL + "description: 2024-01-01\ningest: {max_pixels: 1_000, max_sound_s: 1e1}\n"
        "duplicates: {prefer_licences: [010, 1:30, 'no'], bytes: off}\n"
    )
    recipe = load_recipe(path)
    assert recipe.description == "2024-01-01"
    assert (recipe.ingest.max_pixels, recipe.ingest.max_sound_s) == (1000, 10)
    assert recipe.duplicates.prefer_licences == ("010", "1:30", "no")
    assert recipe.duplicates.bytes is False


def test_paths_may_have_variables_spaces_and_any_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    for name in ("my pictures", "B\u00e4ume", "$PLACE", "a*b[c]"):
        (tmp_path / name).mkdir()
    path = tmp_path / "recipe.yaml"
    for wanted, found in {
        "my pictures": "my pictures", "B\u00e4ume": "B\u00e4ume", "~/my pictures": "my pictures",
        "$PLACE/my pictures": "my pictures", "${PLACE}/B\u00e4ume": "B\u00e4ume",
        "$PLACE": "$PLACE", "a*b[c]": "a*b[c]",
    }.items():  # fmt: skip
        path.write_text(f"name: a\nsources:\n  - {{kind: folder, path: '{wanted}'}}\n", "utf-8")
        assert load_recipe(path).sources[0].path == tmp_path / found


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
        ("shards={max_mb: 1, max_mb: 2}", "the value: max_mb: the key is there twice"),
        ("sources.\u00b2.size=3", "is not the number of an entry"),
        ("select.rules.aesthetic.min=1", "select.rules.aesthetic.min=1: select: aesthetic: "),
        ("duplicates.semantic=0.1", "duplicates.semantic=0.1: duplicates: semantic compares"),
    ],
)
def test_a_wrong_change_is_named(tmp_path, change, part):
    assert part in message_of(tmp_path, MINIMAL, change)


def test_a_mistake_of_the_file_is_not_blamed_on_a_change(tmp_path):
    text = MINIMAL + "duplicates: {semantic: 0.1}\n"
    message = message_of(tmp_path, text, "duplicates.bytes=false", "synthesis.limit=3")
    assert message.startswith("/recipe.yaml:4: duplicates: semantic")


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
