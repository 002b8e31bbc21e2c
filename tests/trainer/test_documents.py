import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.fingerprint import hash_file
from pipeline.errors import UserError
from tests.trainer.conftest import GRID, Squares, square
from tokenizer_cache.code_order import read_in
from tokenizer_cache.manifest import Shard
from tokenizer_cache.shard_files import ShardFiles
from tokenizer_cache.shard_writing import write_shard
from tokenizer_cache.text import describe_text, load_text
from tokenizer_cache.vocabulary import build_vocabulary
from tokenizer_cache.vq.description import describe_vq
from trainer.data.assembly import RowBuilder
from trainer.data.documents import Encoder
from trainer.data.layout import Choice, Rules, lay_out
from trainer.data.order import Draws, fixed
from trainer.data.packing import unpack
from trainer.settings import TrainSettings

TEXT, CODES = square(0)
SETTINGS = TrainSettings(seq_len=96, caption_max_tokens=16)
RULES = Rules(
    stream="image", grid=GRID, seq_len=96, caption_max_tokens=16, condition_dropout=0.0,
    image_to_text=0.0,
)  # fmt: skip


class Written:
    """A shard with the given samples, and what becomes of them."""

    def __init__(
        self, folder: Path, squares: Squares, *samples: Sequence[Sequence[Mapping] | np.ndarray]
    ):
        text = squares.models["text"]
        files = {f"key{n}": sample_files(*each) for n, each in enumerate(samples)}
        shard = write_shard(
            folder / "a.tar", files, load_text(text), describe_text(text).fingerprint
        )
        entry = Shard(
            file="a.tar", part="", name="", samples="", stream="", split="",
            num_samples=len(samples), size_bytes=shard["shard_size_bytes"],
            sha256=shard["shard_sha256"], index_sha256=shard["index_sha256"],
        )  # fmt: skip
        self.manifest = replace(squares.manifest, folder=folder, shards=(entry,))
        self.files = ShardFiles(self.manifest, cache_bytes=0)
        self.text = load_text(text)
        self.num_samples = len(samples)

    def documents(
        self, rules: Rules, choose: Choice = fixed, position: int = 0
    ) -> list[list[str | int]]:
        """The documents, spelt; `position` is that of the first sample in its stream."""
        numbers = np.arange(self.num_samples)
        layout = lay_out(
            self.files, rules, shards=np.zeros_like(numbers), samples=numbers,
            positions=numbers + position, choose=choose,
        )  # fmt: skip
        builder = RowBuilder(
            SETTINGS.model_copy(update={"seq_len": rules.seq_len}),
            self.files,
            self.manifest.vocabulary,
        )
        rows = builder.build(layout, [np.array([n]) for n in range(len(layout.documents))])
        documents = [document for row in rows for document in unpack(row)]
        assert list(map(len, documents)) == layout.documents["length"].tolist()
        return [self.spell(document) for document in documents]

    def spell(self, ids: list[int]) -> list[str | int]:
        """Special tokens by name, text as one string, codes as numbers."""
        vocabulary, shown = self.manifest.vocabulary, []
        run: list[int] = []
        for token in [*ids, -1]:
            if token in range(vocabulary.text.start, vocabulary.text.stop):
                run.append(token - vocabulary.text.start)
                continue
            if run:
                shown.append(self.text.decode(run))
                run = []
            if token in range(vocabulary.image.start, vocabulary.image.stop):
                shown.append(token - vocabulary.image.start)
            elif token >= 0:
                shown.append(vocabulary.special_tokens[token])
        return shown


def sample_files(*segments: Sequence[Mapping] | np.ndarray) -> dict[str, bytes]:
    """A sample of the mixed stream; a list of captions is a text, an array is a picture.

    With a picture and its crops, (v, h, w), it is one of the image stream.
    """
    pictures = [each for each in segments if isinstance(each, np.ndarray)]
    stream = io.BytesIO()
    if pictures and pictures[0].ndim == 3:
        np.save(stream, pictures[0])
        about = {"captions": segments[0], "boxes": []}
        return {"json": json.dumps(about).encode(), "codes.npy": stream.getvalue()}
    numbers = iter(range(len(pictures)))
    shown = [
        {"type": "image", "index": next(numbers)}
        if isinstance(each, np.ndarray)
        else {"type": "text", "captions": each}
        for each in segments
    ]
    files = {"json": json.dumps({"segments": shown}).encode()}
    np.save(stream, np.stack(pictures) if pictures else np.zeros((0, *GRID), np.uint16))
    return files | {"codes.npy": stream.getvalue()}


def texts(*each: str) -> list[dict[str, str]]:
    return [{"text": text} for text in each]


def test_a_picture_follows_its_text_in_raster_order(squares: Squares, tmp_path: Path) -> None:
    codes = np.arange(16, dtype=np.uint16).reshape(4, 4) % 8
    (shown,) = Written(tmp_path, squares, [texts(TEXT), codes]).documents(RULES)
    expected = ["<txt>", TEXT, "</txt>", "<img>", *codes.ravel().tolist(), "</img>", "<eos>"]
    assert shown == expected


def test_a_picture_is_read_in_the_order_that_the_vocabulary_says(
    squares: Squares, tmp_path: Path
) -> None:
    codes = np.array([[0, 4, 1, 4], [4, 4, 4, 4], [2, 4, 3, 4], [4, 4, 4, 4]], np.uint16)
    image = read_in("coarse-first", describe_vq(squares.models["vq"]))
    written = Written(tmp_path, squares, [texts(TEXT), codes])
    vocabulary = written.manifest.vocabulary.extend([image])
    written.manifest = replace(written.manifest, vocabulary=vocabulary)
    (shown,) = written.documents(RULES)
    assert shown[3:] == ["<img>", 0, 1, 2, 3, *[4] * 12, "</img>", "<eos>"]
    encoder = Encoder(vocabulary=vocabulary, text=written.text, caption_max_tokens=16)
    assert written.spell(encoder.image_segment(codes)) == shown[3:-1]


@pytest.mark.parametrize("num_text_tokens", [65_500, 151_643])
def test_codes_keep_their_ids_behind_a_text_vocabulary_of_more_than_16_bits(
    squares: Squares, tmp_path: Path, num_text_tokens: int
) -> None:
    codes = np.arange(16, dtype=np.uint16).reshape(4, 4) % 8
    written = Written(tmp_path, squares, [texts(TEXT), codes])
    text = replace(describe_text(squares.models["text"]), num_tokens=num_text_tokens)
    vocabulary = build_vocabulary(text, describe_vq(squares.models["vq"]))
    assert vocabulary.image.start + 8 > 2**16
    written.manifest = replace(written.manifest, vocabulary=vocabulary)
    (shown,) = written.documents(RULES)
    assert shown[4:-2] == codes.ravel().tolist()


def test_where_the_direction_is_turned_the_text_follows_its_picture(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, *[[texts(TEXT), CODES]] * 500)
    rules = replace(RULES, image_to_text=0.3, condition_dropout=0.5)
    shown = written.documents(rules, Draws(0, "image"))
    turned = [document for document in shown if document[0] == "<img>"]
    assert len(turned) == pytest.approx(150, abs=35)
    assert all(document[-4:] == ["<txt>", TEXT, "</txt>", "<eos>"] for document in turned)


def test_in_a_mixed_document_each_text_follows_its_picture(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, [CODES, texts(TEXT), CODES, texts("again")])
    (shown,) = written.documents(replace(RULES, stream="mixed"))
    words = [word for word in shown if isinstance(word, str)]
    first, second = ["<img>", "</img>", "<txt>", TEXT, "</txt>"], ["<img>", "</img>", "<txt>"]
    assert words == [*first, *second, "again", "</txt>", "<eos>"]


def test_a_long_document_is_cut_before_a_picture_or_a_text_of_its_own(
    squares: Squares, tmp_path: Path
) -> None:
    segments = [texts("start"), *(each for _ in range(4) for each in (CODES, texts(TEXT)))]
    written = Written(tmp_path, squares, [CODES], [*segments, texts("end")], [CODES])
    before, *shown, after = written.documents(replace(RULES, stream="mixed"))
    assert len(before) == len(after) == 19
    assert len(shown) > 1
    assert all(words[-1] == "<eos>" for words in shown)
    assert all(words[0] == "<img>" for words in shown[1:])
    words = [word for document in shown for word in document if isinstance(word, str)]
    texts_in_order = [word for word in words if not word.startswith("<")]
    assert texts_in_order == ["start", *[TEXT] * 4, "end"]


@pytest.mark.parametrize("seq_len", [16, 17, 18, 19, 20, 21, 96])
def test_a_long_text_is_cut_into_pieces_that_make_it_up(
    squares: Squares, tmp_path: Path, seq_len: int
) -> None:
    written = Written(tmp_path, squares, [texts("red green blue " * 9)], [texts("end")])
    rules = replace(RULES, stream="text", seq_len=seq_len)
    words = [word for document in written.documents(rules) for word in document]
    joined = "".join(word for word in words if not word.startswith("<"))
    assert joined == "red green blue " * 9 + "end"
    assert [word for word in words if word.startswith("<")] == ["<txt>", "</txt>", "<eos>"] * 2


def test_every_caption_has_its_turn_and_the_choice_is_repeatable(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, [texts("one", "two"), CODES])
    chosen = [written.documents(RULES, Draws(0, "image"), n)[0][1] for n in range(20)]
    assert set(chosen) == {"one", "two"}
    assert written.documents(RULES, Draws(0, "image"), 3)[0][1] == chosen[3]


def test_a_picture_and_its_crops_have_their_turn_and_the_choice_is_repeatable(
    squares: Squares, tmp_path: Path
) -> None:
    views = np.stack([np.full(GRID, view, np.uint16) for view in (1, 2, 3)])
    written = Written(tmp_path, squares, *[[texts(TEXT), views]] * 300)
    shown = written.documents(RULES, Draws(0, "image"))
    assert all(document[:4] == ["<txt>", TEXT, "</txt>", "<img>"] for document in shown)
    assert all(document[4:20] == document[4:5] * 16 for document in shown)
    counts = Counter(document[4] for document in shown)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 60
    assert written.documents(RULES, Draws(0, "image")) == shown
    assert {document[4] for document in written.documents(RULES)} == {1}


def test_captions_have_their_turn_by_weight(squares: Squares, tmp_path: Path) -> None:
    weighted = [{"text": "own", "weight": 0.2}, {"text": "new", "weight": 0.7},
                {"text": "never", "weight": 0.0}, {"text": "rare", "weight": 0.1}]  # fmt: skip
    written = Written(tmp_path, squares, *[[weighted, CODES]] * 1000)
    shown = written.documents(RULES, Draws(0, "image"))
    counts = Counter(document[1] for document in shown)
    assert counts["own"] == pytest.approx(200, abs=45)
    assert counts["new"] == pytest.approx(700, abs=50)
    assert counts["rare"] == pytest.approx(100, abs=35)
    assert counts.total() == 1000
    assert "never" not in counts


def test_a_dropped_condition_leaves_an_empty_text(squares: Squares, tmp_path: Path) -> None:
    def late(_purpose: str, positions: np.ndarray, _numbers: object = 0) -> np.ndarray:
        return np.full(len(positions), 0.95)

    rules = replace(RULES, condition_dropout=0.1)
    (shown,) = Written(tmp_path / "1", squares, [texts(TEXT), CODES]).documents(rules, late)
    assert shown[:3] == ["<txt>", "</txt>", "<img>"]
    mixed = Written(tmp_path / "2", squares, [CODES, texts(TEXT)])
    (shown,) = mixed.documents(replace(rules, stream="mixed"), late)
    assert TEXT in shown


def test_a_long_caption_is_cut_and_its_picture_is_whole(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, [texts("square " * 100), CODES])
    layout = lay_out(
        written.files, RULES, shards=np.array([0]), samples=np.array([0]),
        positions=np.array([0]), choose=fixed,
    )  # fmt: skip
    assert layout.documents["length"].tolist() == [2 + 16 + 2 + 16 + 1]


def test_a_picture_on_another_grid_is_refused_by_name(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, [texts(TEXT), np.zeros((4, 5), np.uint16)])
    with pytest.raises(UserError, match=r"sample key0 has \(4, 5\) codes"):
        written.documents(RULES)


def test_texts_of_another_tokenizer_are_refused_by_name(squares: Squares, tmp_path: Path) -> None:
    text = load_text(squares.models["text"])
    written = Written(tmp_path, squares, [texts(TEXT), CODES])
    write_shard(tmp_path / "a.tar", {"key0": sample_files(texts(TEXT), CODES)}, text, "other")
    (shard,) = written.manifest.shards
    shard = replace(shard, index_sha256=hash_file(tmp_path / "a.index"))
    files = ShardFiles(replace(written.manifest, shards=(shard,)), cache_bytes=0)
    known = written.manifest.vocabulary.text.tokenizer
    with pytest.raises(UserError, match=f"tokenizer other, and the vocabulary is of {known}"):
        files.index(0)
