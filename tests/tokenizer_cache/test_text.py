import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.engine.fingerprint import hash_file
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import Selected, fit_inputs, write_part
from tokenizer_cache.settings import TextSettings
from tokenizer_cache.text import TextTokenizer, describe_text, fit, load_text
from tokenizer_cache.vocabulary import SPECIAL_TOKENS

CAPTIONS = [f"a {size} {colour} square" for size in ("big", "small") for colour in ("red", "blue")]


def fitted(root: Path, captions: list[str], *, split: str = "train") -> Path:
    selected = [
        Selected(record_id=f"r{n}", stream="text", caption=text, split=split)
        for n, text in enumerate(captions)
    ]
    folder = root / "model"
    folder.mkdir()
    inputs = fit_inputs(write_part(root, "part", selected))
    assert list(fit(TextSettings(vocab_size=300), inputs, folder))[-1].done == 1
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load_text(fitted(tmp_path_factory.mktemp("text"), CAPTIONS))


def test_frequent_words_become_few_tokens(tokenizer: TextTokenizer) -> None:
    assert len(tokenizer.encode("a small red square")) <= 6
    assert 256 < tokenizer.num_tokens <= 300


@given(st.text())
@settings(deadline=None)
def test_any_text_comes_back_as_it_was(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.num_tokens for token in ids)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_text_that_looks_like_a_special_token_is_plain_bytes(
    tokenizer: TextTokenizer, token: str
) -> None:
    assert len(tokenizer.encode(token)) > 1
    assert tokenizer.decode(tokenizer.encode(f"a {token} b")) == f"a {token} b"


def test_the_order_of_the_texts_changes_nothing(tmp_path: Path) -> None:
    folders = []
    for name, captions in (("there", CAPTIONS), ("back", CAPTIONS[::-1])):
        (tmp_path / name).mkdir()
        folders.append(fitted(tmp_path / name, captions))
    first, second = (hash_file(folder / "tokenizer.json") for folder in folders)
    assert first == second
    assert describe_text(folders[0]) == describe_text(folders[1])


def test_held_out_texts_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        fitted(tmp_path, [], split="validation")
    (tmp_path / "other").mkdir()
    tokenizer = load_text(fitted(tmp_path / "other", CAPTIONS, split="validation"))
    assert tokenizer.num_tokens == 256


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as a published model has it: lower case, words, special tokens that it adds."""
    words = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "big": 4, "red": 5, "square": 6, "<": 7,
             "s": 8, ">": 9}  # fmt: skip
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>", "<img>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def adopted(root: Path, published: Path) -> Path:
    folder = root / "model"
    folder.mkdir()
    selected = [Selected(record_id="r", stream="text", caption="a big red square")]
    settings = TextSettings(weights=str(published))
    list(fit(settings, fit_inputs(write_part(root, "part", selected)), folder))
    return folder


def test_a_published_tokenizer_is_copied_and_counts_all_its_ids(
    tmp_path: Path, published: Path
) -> None:
    folder = adopted(tmp_path, published)
    (published / "tokenizer.json").unlink()
    tokenizer = load_text(folder)
    assert tokenizer.encode("a big red square") == [3, 4, 5, 6]
    assert tokenizer.num_tokens == describe_text(folder).num_tokens == 11
    assert json.loads((folder / "metrics.json").read_text())["bytes_per_token"] == 4


def test_a_text_that_spells_a_published_special_token_is_a_text(
    tmp_path: Path, published: Path
) -> None:
    tokenizer = load_text(adopted(tmp_path, published))
    assert tokenizer.encode("a <s> red") == [3, 7, 8, 9, 5]
    assert 10 not in tokenizer.encode("<img>")


@pytest.mark.parametrize("is_saved_before", [False, True], ids=["adopted now", "adopted before"])
def test_what_a_published_tokenizer_does_to_its_models_texts_is_not_done(
    tmp_path: Path, is_saved_before: bool
) -> None:
    pieces = [f"{a}{b}" for a in "abcd" for b in "abcd"]
    vocab = {piece: number for number, piece in enumerate([*"abcd", *pieces])}
    model = models.BPE(vocab=vocab, merges=[tuple(piece) for piece in pieces], dropout=0.5)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["[PAD]"])
    whole = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(piece) for piece in pieces]))
    long = "abcd" * 200
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=16, pad_id=0)
    folder = tmp_path / "published"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    loaded = load_text(folder if is_saved_before else adopted(tmp_path, folder))
    for text in (long, "ab"):
        assert loaded.encode(text) == whole.encode(text).ids
        assert loaded.decode(loaded.encode(text)).replace(" ", "") == text


def test_a_folder_without_a_tokenizer_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no text tokenizer"):
        adopted(tmp_path, tmp_path)


def test_a_size_for_a_tokenizer_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size is for a tokenizer that is trained"):
        TextSettings(weights=str(tmp_path), vocab_size=300)
