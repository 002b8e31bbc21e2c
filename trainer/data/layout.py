"""From samples to documents as lengths and places: what a row will hold, before anything is read.

A text is `<txt> ids </txt>`, a picture `<img> codes </img>` in the vocabulary's order, a sound
`<aud> codes </aud>` frame by frame, and a document is its segments and `<eos>`. All samples of a
stream's block are laid out at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError
from tokenizer_cache.shard_files import ShardFiles
from tokenizer_cache.shard_index import BYTES_PER_CODE, ShardIndex

Choice = Callable[..., np.ndarray]
"""`order.Draws` or `order.fixed`: (n,) numbers in [0, 1) for (n,) samples and a purpose."""

DOCUMENT = np.dtype(
    [
        ("position", np.int64),  # of its sample in the stream
        ("opens_sample", np.bool_),  # whether it is the first of its sample
        ("length", np.int32),  # in tokens
        ("has_end", np.bool_),  # whether `<eos>` is its last token
        ("first_piece", np.int64),
        ("num_pieces", np.int32),
    ]
)
"""Whole in one row."""

MODALITIES = ("text", "image", "audio")
TEXT, IMAGE, AUDIO = range(3)
"""What a piece is, by its place in `MODALITIES`."""

PIECE = np.dtype(
    [
        ("sample", np.int64),  # among those laid out together
        ("number", np.int32),  # of the sample in its shard
        ("shard", np.int32),
        ("kind", np.int8),  # `TEXT`, `IMAGE` or `AUDIO`
        ("is_condition", np.bool_),  # given, in the image or audio stream, for what follows it
        ("source", np.int64),  # first id in the index, or first byte of the codes in the tar
        ("size", np.int32),  # ids or codes
        ("crc32", np.uint32),  # of the codes
        ("start", np.int32),  # which of its `size` + 2 tokens, brackets included, ...
        ("stop", np.int32),  # ... the document has
    ]
)
"""A segment, or the slice of a long text that one document has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Documents in order, and the pieces that they are made of.

    Attributes:
        documents: (D,) `DOCUMENT`.
        pieces: (P,) `PIECE`.
    """

    documents: np.ndarray
    pieces: np.ndarray

    def part(self, start: int, stop: int) -> Layout:
        """Documents `start` to `stop` - 1."""
        documents = self.documents[start:stop].copy()
        first = documents["first_piece"][:1].sum()  # 0 where there is no document
        last = (documents["first_piece"] + documents["num_pieces"])[-1:].sum()
        documents["first_piece"] -= first
        return Layout(documents=documents, pieces=self.pieces[first:last])


def joined(layouts: Sequence[Layout]) -> Layout:
    """The documents of several layouts, one after the other."""
    documents = np.concatenate([each.documents for each in layouts])
    offsets = np.cumsum([0, *(len(each.pieces) for each in layouts)])[:-1]
    documents["first_piece"] += np.repeat(offsets, [len(each.documents) for each in layouts])
    return Layout(documents=documents, pieces=np.concatenate([each.pieces for each in layouts]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the samples of a stream become documents.

    Attributes:
        stream: `text`, `image`, `mixed` or `audio`.
        grid: height and width of every picture's codes.
        seq_len: length of a row, and so of the longest document.
        caption_max_tokens: a text beside a picture is cut after that many ids.
        condition_dropout: share of the image stream's texts that are emptied.
        image_to_text: share of the image stream's samples whose picture comes first.
    """

    stream: str
    grid: tuple[int, int]
    seq_len: int
    caption_max_tokens: int
    condition_dropout: float
    image_to_text: float


def lay_out(
    files: ShardFiles,
    rules: Rules,
    *,
    shards: np.ndarray,
    samples: np.ndarray,
    positions: np.ndarray,
    choose: Choice,
) -> Layout:
    """The documents of some samples: one each, or several of a sample that is longer than a row.

    Args:
        files: the stream's shards.
        rules: of the stream.
        shards: (n,) number of each sample's shard.
        samples: (n,) number of each sample in its shard.
        positions: (n,) of the samples in the stream.
        choose: decides captions, crops, directions, and which conditions are dropped.

    Raises:
        UserError: when a picture has another grid than the vocabulary's, or when a picture and its
            text are longer than a row.
    """
    pieces = _segments(files, rules, shards, samples, positions, choose)
    if rules.stream == "text":
        return _cut_texts(pieces, positions, rules.seq_len)
    is_text = pieces["kind"] == TEXT
    pieces["size"][is_text] = np.minimum(pieces["size"][is_text], rules.caption_max_tokens)
    if rules.stream in ("image", "audio"):
        pieces = _direct(pieces, rules, positions, choose)
    pieces["stop"] = pieces["size"] + 2
    begins = np.diff(pieces["sample"], prepend=-1) > 0  # the pieces that begin a document
    if rules.stream == "mixed":
        begins |= _cut_interleaved(pieces, rules.seq_len)
    first = np.flatnonzero(begins)
    documents = np.zeros(len(first), DOCUMENT)
    owner = pieces["sample"][first]
    documents["position"] = positions[owner]
    documents["opens_sample"] = np.diff(owner, prepend=-1) > 0
    documents["first_piece"] = first
    documents["num_pieces"] = np.diff(first, append=len(pieces))
    if len(first):
        documents["length"] = np.add.reduceat(pieces["stop"], first) + 1
    documents["has_end"] = True
    _check_lengths(files, rules, documents, pieces)
    return Layout(documents=documents, pieces=pieces)


def ragged(counts: np.ndarray) -> np.ndarray:
    """0 to count - 1 for each of `counts`, one after the other, as int64."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def _segments(
    files: ShardFiles,
    rules: Rules,
    shards: np.ndarray,
    samples: np.ndarray,
    positions: np.ndarray,
    choose: Choice,
) -> np.ndarray:
    """(P,) whole segments of the samples in order, each text with the caption that was chosen."""
    by_shard = np.argsort(shards, kind="stable")
    bounds = np.flatnonzero(np.diff(shards[by_shard])) + 1
    parts = []
    for own in np.split(by_shard, bounds) if len(shards) else []:
        shard = int(shards[own[0]])
        index = files.index(shard)
        first = index.first_segment[samples[own]]
        counts = index.first_segment[samples[own] + 1] - first
        numbers = ragged(counts)
        owner = np.repeat(own, counts)
        segments = np.repeat(first, counts) + numbers
        part = np.zeros(len(segments), PIECE)
        part["sample"], part["number"], part["shard"] = owner, samples[owner], shard
        # What is no text is a sound in the stream of sounds, and a picture in any other one.
        is_coded = index.first_caption[segments] == index.first_caption[segments + 1]
        part["kind"][is_coded] = AUDIO if rules.stream == "audio" else IMAGE
        texts = segments[~is_coded]
        draws = choose("caption", positions[owner], numbers)[~is_coded]
        captions = _chosen(index, texts, draws)
        part["source"][~is_coded] = index.first_id[captions]
        part["size"][~is_coded] = index.first_id[captions + 1] - index.first_id[captions]
        coded = segments[is_coded]
        if rules.stream != "audio":
            _check_grid(index, rules.grid, part[is_coded], coded)
        part["source"][is_coded] = index.at[coded]
        part["crc32"][is_coded] = index.crc32[coded]
        part["size"][is_coded] = index.rows[coded].astype(np.int32) * index.columns[coded]
        if len(index.crop_crc32):
            draws = choose("crop", positions[owner], numbers)[is_coded]
            _crop(part, np.flatnonzero(is_coded), index, coded, draws)
        parts.append(part)
    pieces = np.concatenate(parts) if parts else np.zeros(0, PIECE)
    return pieces[np.argsort(pieces["sample"], kind="stable")]


def _chosen(index: ShardIndex, texts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """For each text segment the caption on which its draw falls, each as broad as its weight."""
    captions = index.first_caption[texts]
    left = index.first_caption[texts + 1] - captions - 1
    while (goes_on := (left > 0) & (draws >= index.upto[captions])).any():
        captions = captions + goes_on
        left = left - goes_on
    return captions


def _crop(
    part: np.ndarray,
    places: np.ndarray,
    index: ShardIndex,
    pictures: np.ndarray,
    draws: np.ndarray,
) -> None:
    """Let the pieces at some places be a crop of their picture, or all of it, as each has drawn."""
    first = index.first_crop[pictures]
    views = (draws * (index.first_crop[pictures + 1] - first + 1)).astype(np.int64)
    is_crop = views > 0
    cropped = places[is_crop]
    part["source"][cropped] += views[is_crop] * part["size"][cropped] * BYTES_PER_CODE
    part["crc32"][cropped] = index.crop_crc32[(first + views - 1)[is_crop]]


def _direct(pieces: np.ndarray, rules: Rules, positions: np.ndarray, choose: Choice) -> np.ndarray:
    """The pieces of the image or audio stream in the direction that each sample has drawn."""
    # The upper end of the interval drops or turns, so that `fixed` never does.
    turned = choose("direction", positions) >= 1 - rules.image_to_text
    dropped = ~turned & (choose("condition", positions) >= 1 - rules.condition_dropout)
    is_coded = pieces["kind"] != TEXT
    pieces["is_condition"] = is_coded == turned[pieces["sample"]]
    pieces["size"][dropped[pieces["sample"]] & ~is_coded] = 0
    return pieces[np.lexsort((~pieces["is_condition"], pieces["sample"]))]


def _cut_texts(segments: np.ndarray, positions: np.ndarray, seq_len: int) -> Layout:
    """Texts, each cut into as few documents as hold it."""
    total = segments["size"] + 3
    counts = -(-total // seq_len)
    numbers = ragged(counts)
    pieces = np.repeat(segments, counts)
    total = np.repeat(total, counts)
    pieces["start"] = numbers * seq_len
    pieces["stop"] = np.minimum(pieces["start"] + seq_len, total - 1)
    documents = np.zeros(len(pieces), DOCUMENT)
    documents["position"] = positions[pieces["sample"]]
    documents["opens_sample"] = numbers == 0
    documents["length"] = np.minimum(seq_len, total - pieces["start"])
    documents["has_end"] = numbers == np.repeat(counts, counts) - 1
    documents["first_piece"] = np.arange(len(pieces))
    documents["num_pieces"] = 1
    return Layout(documents=documents, pieces=pieces)


def _cut_interleaved(pieces: np.ndarray, seq_len: int) -> np.ndarray:
    """(P,) bool: before which pieces a sample that is longer than a row is cut.

    A text stays with the picture that it follows; anything else of a document may part.
    """
    lengths = pieces["stop"]
    begins = np.zeros(len(pieces), np.bool_)
    totals = np.bincount(pieces["sample"], lengths) + 1
    for sample in np.flatnonzero(totals > seq_len):
        first, stop = np.searchsorted(pieces["sample"], (sample, sample + 1)).tolist()
        is_image = pieces["kind"][first:stop] == IMAGE
        stays = ~is_image
        stays[1:] &= is_image[:-1]
        stays[0] = False
        units = np.flatnonzero(~stays)
        sizes = np.add.reduceat(lengths[first:stop], units)
        used = 1
        for unit, length in zip((first + units).tolist(), sizes.tolist(), strict=True):
            if unit > first and used + length > seq_len:
                begins[unit] = True
                used = 1
            used += length
    return begins


def _check_grid(
    index: ShardIndex, grid: tuple[int, int], pieces: np.ndarray, pictures: np.ndarray
) -> None:
    height, width = index.rows[pictures], index.columns[pictures]
    wrong = np.flatnonzero((height != grid[0]) | (width != grid[1]))
    if len(wrong):
        first = wrong[0]
        raise UserError(
            f"a picture of sample {index.key(int(pieces['number'][first]))} has "
            f"({height[first]}, {width[first]}) codes; the vocabulary says {grid}",
            "Run `anymix run` again to write the shards anew.",
        )


def _check_lengths(
    files: ShardFiles, rules: Rules, documents: np.ndarray, pieces: np.ndarray
) -> None:
    long = np.flatnonzero(documents["length"] > rules.seq_len)
    if len(long):
        piece = pieces[documents["first_piece"][long[0]]]
        key = files.index(int(piece["shard"])).key(int(piece["number"]))
        what, shorter = "picture", "train.caption_max_tokens"
        if rules.stream == "audio":
            what, shorter = "sound", "ingest.max_sound_s"
        raise UserError(
            f"sample {key} ({rules.stream}) has {documents['length'][long[0]]} tokens for one "
            f"{what} with its text; a row holds train.seq_len = {rules.seq_len}",
            f"A {what} is never cut: raise train.seq_len, or lower {shorter}.",
        )
