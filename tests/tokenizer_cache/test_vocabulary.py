import copy
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from tokenizer_cache.vocabulary import (
    NUM_RESERVED,
    SPECIAL_TOKENS,
    TokenizerDescription,
    Vocabulary,
    build_vocabulary,
    parse_vocabulary,
    read_vocabulary,
)

TEXT = TokenizerDescription(modality="text", num_tokens=300, fingerprint="t")
IMAGE = TokenizerDescription(modality="image", num_tokens=64, fingerprint="i", grid=(8, 8))
AUDIO = TokenizerDescription(modality="audio", num_tokens=10, fingerprint="a")
SCHEMA = json.loads((files("tokenizer_cache") / "vocabulary.schema.json").read_text())

names = st.integers(0, 5).map(str)
extensions = st.one_of(
    st.builds(
        lambda modality, size, name: ("tokenizer", modality, size, name),
        st.sampled_from(["text", "image", "audio"]),
        st.integers(1, 40),
        names,
    ),
    st.tuples(st.just("sides"), st.integers(1, 9)),
    st.tuples(st.just("special"), st.integers(0, 99)),
    st.tuples(st.just("grid"), st.integers(1, 9)),
)


def extended(vocabulary: Vocabulary, what: tuple[Any, ...]) -> Vocabulary:
    match what:
        case ("tokenizer", modality, size, name):
            grid = (2, 2) if modality == "image" else None
            print_ = f"{modality}-{size}-{name}"
            tokenizer = TokenizerDescription(
                modality=modality, num_tokens=size, fingerprint=print_, grid=grid
            )
            is_old = any(
                known.tokenizer == print_ and known != vocabulary.range_of(modality)
                for known in vocabulary.ranges
            )
            return vocabulary if is_old else vocabulary.extend([tokenizer])
        case ("sides", longest):
            return vocabulary.append_sides(longest)
        case ("grid", side):
            image = vocabulary.image
            again = TokenizerDescription(
                modality="image",
                num_tokens=image.size,
                fingerprint=image.tokenizer or "",
                grid=(side, side),
            )
            return vocabulary.extend([again])
        case ("special", number):
            name = f"<further-{number}>"
            is_full = len(vocabulary.special_tokens) == NUM_RESERVED
            return vocabulary if is_full or name in vocabulary.special_tokens else (
                vocabulary.name_special(name)
            )  # fmt: skip
    raise AssertionError(what)


def test_ranges_follow_each_other_from_the_special_tokens_on() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    assert vocabulary.text.start == NUM_RESERVED
    assert vocabulary.image.start == vocabulary.text.stop
    assert vocabulary.size == NUM_RESERVED + 300 + 64
    assert vocabulary.image.grid == (8, 8)
    assert [vocabulary.special(token) for token in SPECIAL_TOKENS] == list(
        range(len(SPECIAL_TOKENS))
    )


def test_every_id_has_the_modality_of_its_range() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    ids: dict[str, list[int]] = {modality: [] for modality in ("special", "text", "image")}
    for token in range(vocabulary.size):
        ids[vocabulary.modality_of(token)].append(token)
    assert {name: (held[0], held[-1] + 1) for name, held in ids.items()} == {
        known.modality: (known.start, known.stop) for known in vocabulary.ranges
    }
    with pytest.raises(ValueError, match="outside"):
        vocabulary.modality_of(vocabulary.size)


@settings(deadline=None)
@given(st.lists(extensions, max_size=8))
def test_no_extension_moves_an_id(steps: list[tuple[Any, ...]]) -> None:
    before = build_vocabulary(TEXT, IMAGE)
    meanings = [before.meaning_of(token) for token in range(before.size)]
    for step in steps:
        longer = extended(before, step)
        assert [longer.meaning_of(token) for token in range(before.size)] == meanings
        assert longer.special_tokens[: len(before.special_tokens)] == before.special_tokens
        assert parse_vocabulary(json.loads(json.dumps(longer.to_json()))) == longer
        meanings = [longer.meaning_of(token) for token in range(longer.size)]
        before = longer


def test_the_newest_tokenizer_of_a_modality_is_the_one_that_counts() -> None:
    finer = TokenizerDescription(modality="image", num_tokens=128, fingerprint="j", grid=(16, 16))
    vocabulary = build_vocabulary(TEXT, IMAGE)
    longer = vocabulary.extend([TEXT, finer])
    assert longer.image.start == vocabulary.size
    assert longer.text == vocabulary.text
    with pytest.raises(ValueError, match="followed by another"):
        longer.extend([IMAGE])


def test_a_larger_grid_of_the_same_codes_needs_no_new_ids() -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    larger = TokenizerDescription(
        modality="image", num_tokens=64, fingerprint="i", grid=(16, 16),
        order="coarse-first", scales=((4, 4), (8, 8), (16, 16)),
    )  # fmt: skip
    progressed = vocabulary.extend([TEXT, larger])
    assert progressed.size == vocabulary.size
    assert progressed.image.grid == (16, 16)
    assert progressed.fingerprint != vocabulary.fingerprint


def test_json_gives_the_same_vocabulary_back(tmp_path: Path) -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE).append(AUDIO).append_sides(64)
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(vocabulary.to_json()))
    again = read_vocabulary(path)
    assert again == vocabulary
    assert again.fingerprint == vocabulary.fingerprint


def test_other_codes_have_another_fingerprint() -> None:
    other = TokenizerDescription(modality="image", num_tokens=64, fingerprint="j", grid=(8, 8))
    assert build_vocabulary(TEXT, IMAGE).fingerprint != build_vocabulary(TEXT, other).fingerprint


def test_the_schema_in_the_package_is_that_of_the_models() -> None:
    assert Vocabulary.model_json_schema() == SCHEMA
    jsonschema.validate(build_vocabulary(TEXT, IMAGE).append_sides(9).to_json(), SCHEMA)
    with pytest.raises(jsonschema.ValidationError, match="'raster'"):
        wrong = build_vocabulary(TEXT, IMAGE).to_json()
        wrong["ranges"][2]["order"] = "spiral"
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        ("version", 2, r"version: Input should be 1 \(found 2\)"),
        ("size", 7, r"size: the last range ends at 396 \(found 7\)"),
        ("special_tokens.0", "<start>", "special_tokens: they begin with <pad>, "),
        ("special_tokens.2", "<text>", "special_tokens.3: the format has this name for id 3"),
        ("special_tokens.10", "<pad>", "special_tokens.10: the format has this name for id 0"),
        ("ranges.0.modality", "side", "ranges.0.modality: special tokens are the first range"),
        ("ranges.0.size", 3, "ranges.1.start: the range starts at 3"),
        ("ranges.1.modality", "smell", "ranges.1.modality: Input should be 'special'"),
        ("ranges.1.start", 31, r"ranges.1.start: the range starts at 32 \(found 31\)"),
        ("ranges.1.tokenizer", None, "ranges.1.tokenizer: text tokens have the fingerprint"),
        ("ranges.1.tokenizer", "i", r"ranges.1.tokenizer: each has one range \(found 'i'\)"),
        ("ranges.1.grid", [2, 2], "ranges.1.grid: only image tokens have one"),
        ("ranges.1.colour", "red", "ranges.1.colour: Extra inputs are not permitted"),
        ("ranges.2.order", None, "ranges.2.order: image tokens have one"),
        ("ranges.2.order", "coarse-first", r"ranges.2.scales: they grow, and end with the grid"),
        ("ranges.2.scales", [[8, 8]], "ranges.2.scales: only other orders than raster"),
        ("ranges.2.grid", None, "ranges.2.grid: without a grid for all images"),
        ("ranges.2.grid", [0, 8], "ranges.2.grid.0: Input should be greater than or equal to 1"),
    ],
)
def test_the_validator_names_the_field(tmp_path: Path, way: str, value: Any, message: str) -> None:
    wrong = copy.deepcopy(build_vocabulary(TEXT, IMAGE).to_json())
    *steps, last = [int(each) if each.isdigit() else each for each in way.split(".")]
    place = wrong
    for step in steps:
        place = place[step]
    place[last] = value
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=message):
        read_vocabulary(path)
    with pytest.raises(UserError, match=str(path)):
        read_vocabulary(path)


@pytest.mark.parametrize("scales", [[[3, 3], [8, 8]], [[8, 8], [4, 4], [8, 8]], [[4, 4]]])
def test_the_scales_of_coarse_first_divide_each_other(scales: list[list[int]]) -> None:
    wrong = build_vocabulary(TEXT, IMAGE).to_json()
    wrong["ranges"][2] |= {"order": "coarse-first", "scales": scales}
    with pytest.raises(ValueError, match=r"ranges\.2\.scales"):
        parse_vocabulary(wrong)


def test_a_vocabulary_of_before_the_format_is_refused() -> None:
    old = build_vocabulary(TEXT, IMAGE).to_json()
    del old["special_tokens"]
    with pytest.raises(ValueError, match="special_tokens: Field required"):
        parse_vocabulary(old)


def test_a_file_from_before_a_special_token_was_appended_is_read(monkeypatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "vocabulary.md"
    older = json.loads(page.read_text().split("```json\n")[1].split("```")[0])
    named = parse_vocabulary(older).name_special("<others>").to_json()
    monkeypatch.setattr("tokenizer_cache.vocabulary.SPECIAL_TOKENS", (*SPECIAL_TOKENS, "<edit>"))
    for held in (older, named):
        vocabulary = parse_vocabulary(held)
        assert vocabulary.to_json() == held
        with pytest.raises(ValueError, match="the vocabulary has no special token <edit>"):
            vocabulary.special("<edit>")
    assert parse_vocabulary(older).name_special("<edit>").special("<edit>") == len(SPECIAL_TOKENS)
    with pytest.raises(ValueError, match=r"special_tokens.12: the format has this name for id 11"):
        parse_vocabulary(named).name_special("<edit>")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("<img>", r"special_tokens.11: the format has this name for id 4 \(found '<img>'\)"),
        ("<mine>", r"special_tokens: each is <another>"),
        ("edit", r"special_tokens: each is <another>"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused_in_a_sentence(name: str, message: str) -> None:
    vocabulary = build_vocabulary(TEXT, IMAGE)
    if name == "<mine>":
        vocabulary = vocabulary.name_special(name)
    with pytest.raises(ValueError, match=message) as caught:
        vocabulary.name_special(name)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_docs_is_a_vocabulary() -> None:
    page = Path(__file__).parents[2] / "docs" / "vocabulary.md"
    example = page.read_text().split("```json\n")[1].split("```")[0]
    vocabulary = parse_vocabulary(json.loads(example))
    assert vocabulary.to_json() == json.loads(example)
    assert vocabulary.image.num_codes == 64


def test_an_audio_tokenizer_says_how_many_codebooks_its_tokens_are_of() -> None:
    four = TokenizerDescription(modality="audio", num_tokens=4096, fingerprint="e", codebooks=4)
    vocabulary = build_vocabulary(TEXT, IMAGE, four)
    jsonschema.validate(vocabulary.to_json(), SCHEMA)
    assert parse_vocabulary(vocabulary.to_json()) == vocabulary
    assert vocabulary.range_of("audio").codebooks == 4
    # What has none says nothing of them: a file from before there were any keeps its fingerprint.
    assert "codebooks" not in build_vocabulary(TEXT, IMAGE, AUDIO).to_json()["ranges"][3]
    for place, wrong in ((1, 4), (3, 3)):
        broken = vocabulary.to_json()
        broken["ranges"][place]["codebooks"] = wrong
        with pytest.raises(ValueError, match=f"ranges.{place}.codebooks: of audio tokens"):
            parse_vocabulary(broken)
