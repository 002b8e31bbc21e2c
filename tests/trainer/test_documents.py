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
from trainer.data.documents import Document
from trainer.data.order import Draws
from trainer.data.packing import Row, unpack
from trainer.data.rows import RowBuilder
from trainer.data.sequence import Writer, codes_segment
from trainer.data.streams import document_maker
from trainer.data.tasks import Draw, fixed
from trainer.settings import TrainSettings

TEXT, CODES = square(0)
SETTINGS = TrainSettings(seq_len=96, caption_max_tokens=16, condition_dropout=0.0)


class Written:
    """A shard with the given samples, and what becomes of them."""

    def __init__(
        self,
        folder: Path,
        squares: Squares,
        *samples: Sequence[Sequence[Mapping] | np.ndarray | Mapping[str, str]],
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

    def rows(
        self,
        settings: TrainSettings = SETTINGS,
        *,
        stream: str = "image",
        draws: Draws | None = None,
        position: int = 0,
    ) -> tuple[list[Document], list[Row]]:
        """The documents, and a row of each; `position` is that of the first sample in its stream.

        Without `draws` they are those of held-out samples.
        """
        builder = RowBuilder(settings, self.files, self.manifest.vocabulary)
        make = document_maker(
            settings, self.files, self.manifest.vocabulary, stream, builder.writer
        )
        seeds = (draws or Draws(0, "")).seeds(np.arange(self.num_samples) + position).tolist()
        documents = []
        for number, seed in enumerate(seeds):
            draw: Draw = fixed if draws is None else draws.of(seed)
            documents += make(0, number, draw)
        return documents, builder.build([[document] for document in documents])

    def documents(
        self,
        settings: TrainSettings = SETTINGS,
        *,
        stream: str = "image",
        draws: Draws | None = None,
        position: int = 0,
    ) -> list[list[str | int]]:
        """The documents, spelt."""
        documents, rows = self.rows(settings, stream=stream, draws=draws, position=position)
        held = [unpack(row)[0] for row in rows]
        assert [each.length for each in documents] == list(map(len, held))
        return [self.spell(ids) for ids in held]

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


def sample_files(
    *segments: Sequence[Mapping] | np.ndarray | Mapping[str, str],
) -> dict[str, bytes]:
    """A sample of the mixed stream; a list of captions is a text, an array is a picture.

    With a picture and its crops, (v, h, w), it is one of the image stream; then texts by their kind
    may follow that do not describe it.
    """
    pictures = [each for each in segments if isinstance(each, np.ndarray)]
    stream = io.BytesIO()
    if pictures and pictures[0].ndim == 3:
        np.save(stream, pictures[0])
        written = [
            json.dumps(
                {"record_id": "r", "variant_id": "v", "kind": kind, "form": "", "text": text}
            )
            for each in segments[2:]
            if isinstance(each, dict)
            for kind, text in each.items()
        ]
        about = {"captions": segments[0], "boxes": [], "variants": "\n".join(written)}
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


def changed(**changes: object) -> TrainSettings:
    return TrainSettings.model_validate(SETTINGS.model_dump(exclude={"tasks"}) | changes)


def texts(*each: str) -> list[dict[str, str]]:
    return [{"text": text} for text in each]


def test_a_picture_follows_its_text_in_raster_order(squares: Squares, tmp_path: Path) -> None:
    codes = np.arange(16, dtype=np.uint16).reshape(4, 4) % 8
    (shown,) = Written(tmp_path, squares, [texts(TEXT), codes]).documents()
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
    (shown,) = written.documents()
    assert shown[3:] == ["<img>", 0, 1, 2, 3, *[4] * 12, "</img>", "<eos>"]
    prompt = Writer(vocabulary).write([codes_segment(codes, vocabulary.image)])
    assert written.spell(prompt.tokens.tolist()) == shown[3:]


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
    (shown,) = written.documents()
    assert shown[4:-2] == codes.ravel().tolist()


def test_where_the_direction_is_turned_the_text_follows_its_picture(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, *[[texts(TEXT), CODES]] * 500)
    settings = changed(image_to_text=0.3, condition_dropout=0.5)
    shown = written.documents(settings, draws=Draws(0, "image"))
    turned = [document for document in shown if document[0] == "<img>"]
    assert len(turned) == pytest.approx(150, abs=35)
    assert all(document[-4:] == ["<txt>", TEXT, "</txt>", "<eos>"] for document in turned)


def test_in_a_mixed_document_each_text_follows_its_picture(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, [CODES, texts(TEXT), CODES, texts("again")])
    (shown,) = written.documents(stream="mixed")
    words = [word for word in shown if isinstance(word, str)]
    first, second = ["<img>", "</img>", "<txt>", TEXT, "</txt>"], ["<img>", "</img>", "<txt>"]
    assert words == [*first, *second, "again", "</txt>", "<eos>"]


def test_a_long_document_is_cut_before_a_picture_or_a_text_of_its_own(
    squares: Squares, tmp_path: Path
) -> None:
    segments = [texts("start"), *(each for _ in range(4) for each in (CODES, texts(TEXT)))]
    written = Written(tmp_path, squares, [CODES], [*segments, texts("end")], [CODES])
    before, *shown, after = written.documents(stream="mixed")
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
    settings = changed(seq_len=seq_len)
    documents, rows = written.rows(settings, stream="text")
    words = [word for row in rows for word in written.spell(unpack(row)[0])]
    joined = "".join(word for word in words if not word.startswith("<"))
    assert joined == "red green blue " * 9 + "end"
    assert [word for word in words if word == "<eos>"] == ["<eos>"] * 2
    close = written.manifest.vocabulary.special("</txt>")
    for document, row in zip(documents, rows, strict=True):
        assert document.length <= seq_len
        assert (close in row.targets) == document.ends


def test_every_caption_has_its_turn_and_the_choice_is_repeatable(
    squares: Squares, tmp_path: Path
) -> None:
    written = Written(tmp_path, squares, [texts("one", "two"), CODES])
    chosen = [written.documents(draws=Draws(0, "image"), position=n)[0][1] for n in range(20)]
    assert set(chosen) == {"one", "two"}
    assert written.documents(draws=Draws(0, "image"), position=3)[0][1] == chosen[3]


def test_a_picture_and_its_crops_have_their_turn_and_the_choice_is_repeatable(
    squares: Squares, tmp_path: Path
) -> None:
    views = np.stack([np.full(GRID, view, np.uint16) for view in (1, 2, 3)])
    written = Written(tmp_path, squares, *[[texts(TEXT), views]] * 300)
    shown = written.documents(draws=Draws(0, "image"))
    assert all(document[:4] == ["<txt>", TEXT, "</txt>", "<img>"] for document in shown)
    assert all(document[4:20] == document[4:5] * 16 for document in shown)
    counts = Counter(document[4] for document in shown)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 60
    assert written.documents(draws=Draws(0, "image")) == shown
    assert {document[4] for document in written.documents()} == {1}


def test_captions_have_their_turn_by_weight(squares: Squares, tmp_path: Path) -> None:
    weighted = [{"text": "own", "weight": 0.2}, {"text": "new", "weight": 0.7},
                {"text": "never", "weight": 0.0}, {"text": "rare", "weight": 0.1}]  # fmt: skip
    written = Written(tmp_path, squares, *[[weighted, CODES]] * 1000)
    shown = written.documents(draws=Draws(0, "image"))
    counts = Counter(document[1] for document in shown)
    assert counts["own"] == pytest.approx(200, abs=45)
    assert counts["new"] == pytest.approx(700, abs=50)
    assert counts["rare"] == pytest.approx(100, abs=35)
    assert counts.total() == 1000
    assert "never" not in counts


def test_a_dropped_condition_leaves_an_empty_text(squares: Squares, tmp_path: Path) -> None:
    draws = Draws(0, "image")
    settings = changed(condition_dropout=0.99)
    written = Written(tmp_path / "1", squares, *[[texts(TEXT), CODES]] * 9)
    empty = [shown[:3] for shown in written.documents(settings, draws=draws)]
    assert empty.count(["<txt>", "</txt>", "<img>"]) > 6
    mixed = Written(tmp_path / "2", squares, *[[CODES, texts(TEXT)]] * 9)
    shown = mixed.documents(settings, stream="mixed", draws=draws)
    assert all(TEXT in document for document in shown)


def test_a_long_caption_is_cut_and_its_picture_is_whole(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, [texts("square " * 100), CODES])
    (document,), _ = written.rows()
    assert document.length == 2 + 16 + 2 + 16 + 1


@pytest.mark.parametrize("to_text", [0, 1])
def test_that_a_caption_ends_where_it_was_cut_is_not_learnt(
    squares: Squares, tmp_path: Path, to_text: int
) -> None:
    written = Written(tmp_path, squares, [texts("square " * 100), CODES], [texts(TEXT), CODES])
    documents, (cut, whole) = written.rows(changed(image_to_text=to_text))
    close = written.manifest.vocabulary.special("</txt>")
    assert close in cut.tokens
    assert close not in cut.targets
    assert close in whole.targets
    # `<eos>` after a cut would be the same lie.
    assert [document.ends for document in documents] == [not to_text, True]


def test_a_long_paragraph_between_pictures_is_not_lost(squares: Squares, tmp_path: Path) -> None:
    long = "red green blue " * 60
    written = Written(tmp_path, squares, [CODES, texts(long), CODES, texts(TEXT)])
    documents, rows = written.rows(stream="mixed")
    words = [word for row in rows for word in written.spell(unpack(row)[0])]
    assert "".join(str(w) for w in words if isinstance(w, str) and w[0] != "<") == long + TEXT
    assert len(documents) > 1
    assert all(document.length <= SETTINGS.seq_len for document in documents)
    closed = [written.manifest.vocabulary.special("</txt>") in row.targets for row in rows]
    assert closed == [document.ends for document in documents]
    assert closed[-1]
    assert not closed[0]


def test_a_picture_that_fits_no_row_is_left_out(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, [texts(TEXT * 9), CODES], [texts("a"), CODES])
    documents, _ = written.rows(changed(seq_len=30))
    assert [document.number for document in documents] == [1]


def test_a_picture_on_another_grid_is_refused_by_name(squares: Squares, tmp_path: Path) -> None:
    written = Written(tmp_path, squares, [texts(TEXT), np.zeros((4, 5), np.uint16)])
    with pytest.raises(UserError, match=r"sample key0 has \(4, 5\) codes"):
        written.documents()


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
