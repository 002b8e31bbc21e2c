"""Whether paths that must agree do: packed shards and own rows, codes and pictures, the cache.

A training checks it at its first step, and what depends on the weights at each checkpoint too, as a
loss that falls says nothing of what the sampler does with the same weights. Each check compares the
results of two paths that have as little code in common as there is.

Legend: n pictures, T tokens, V vocabulary, h w code grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from PIL import Image

from pipeline.errors import FAILED, UserError
from tokenizer_cache.manifest import Manifest
from tokenizer_cache.shard_reading import ImageSegment, Sample, TextSegment, read_shard
from tokenizer_cache.vocabulary import Vocabulary
from tokenizer_cache.vq.tokenizer import VQTokenizer
from trainer.data.batch import collate
from trainer.data.documents import Document
from trainer.data.packing import Row, pack
from trainer.data.rows import RowBuilder, row_of
from trainer.data.sequence import Written, codes_of, read_document
from trainer.data.streams import document_maker, numbers_of, open_files
from trainer.data.tasks import fixed
from trainer.evaluate.likelihood import codes_nats, picture_nats
from trainer.generate.engine import Continuation
from trainer.model.decoder import Decoder
from trainer.run import Run
from trainer.settings import ImageTaskSettings

NUM_PICTURES = 4
"""Held-out pictures that are looked at."""
_MAX_STEPS = 64
"""Codes of each that are read one after another with the cache."""
_MIN_SAME_CODES = 0.98
"""Share of the codes that a picture gives again. Ours: another batch size rounds otherwise, which
changes a code that is as near to two entries of the codebook."""
_MAX_NATS = 1e-3
"""Difference that rounding may make in the loss of the codes, as a share of it. Ours: sums of
float32 in another order differ by some 1e-6."""
_MAX_LOGIT = 1e-4
"""The same in a logit."""
_MAX_LEVEL = 1
"""The same in a channel of a pixel, of 256 levels."""


class InconsistentError(UserError):
    """Two paths that must agree do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A held-out picture.

    Attributes:
        key: of its sample.
        text: its caption.
        codes: (h, w) uint16, as its shard has them.
        picture: the true picture; None where it is not at hand.
    """

    key: str
    text: str
    codes: np.ndarray
    picture: Image.Image | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Held-out pictures that are compared, read once for all checks of a training.

    Attributes:
        examples: as their files say; at least one.
        documents: of the examples, as they are in the rows.
        rows: packed as training has them.
    """

    examples: Sequence[Example]
    documents: Sequence[Written]
    rows: Sequence[Row]


def check_consistency(
    run: Run,
    manifest: Manifest,
    *,
    pictures: Mapping[str, Image.Image] | None = None,
    num_pictures: int = NUM_PICTURES,
) -> int:
    """Compare what must agree, on the first held-out pictures of the stream `image`.

    Args:
        run: the model.
        manifest: of shards of its vocabulary.
        pictures: as in `read_compared`.
        num_pictures: how many samples are looked at.

    Returns:
        How many pictures were compared; 0 where none is held out that fits a row.

    Raises:
        InconsistentError: when something does not agree; it names which of the three.
    """
    compared = read_compared(run, manifest, pictures=pictures, num_pictures=num_pictures)
    if compared is None:
        return 0
    check_all(run, compared)
    return len(compared.examples)


def read_compared(
    run: Run,
    manifest: Manifest,
    *,
    pictures: Mapping[str, Image.Image] | None = None,
    num_pictures: int = NUM_PICTURES,
) -> Compared | None:
    """Read what is compared; None where no picture is held out that fits a row.

    Args:
        run: the model.
        manifest: of shards of its vocabulary.
        pictures: the true pictures by the ids of their records, as far as they are at hand; with
            them, that they give their codes again is checked, too.
        num_pictures: how many samples are looked at.

    Raises:
        InconsistentError: when a picture does not give its codes again.
    """
    if run.vq is None or not manifest.vocabulary.has("image"):
        return None
    examples, rows = _read_both_ways(run, manifest, pictures or {}, num_pictures)
    if not examples:
        return None
    return Compared(
        examples=encode_again(run.vq, examples),
        documents=[document for row in rows for document in _documents(row)],
        rows=rows,
    )


def check_all(run: Run, compared: Compared) -> None:
    """Compare what depends on the weights, and what is decoded, which does not.

    Raises:
        InconsistentError: when something does not agree.
    """
    check_model(run, compared)
    if run.images.can_decode:
        check_pictures(run.images, run.vocabulary, compared.examples, compared.documents)


def check_model(run: Run, compared: Compared) -> None:
    """Compare what depends on the weights: the losses, and the logits with a cache and without.

    Raises:
        InconsistentError: when something does not agree.
    """
    check_losses(run, compared.examples, compared.rows)
    check_cache(run.model, run.vocabulary, compared.documents)


def encode_again(vq: VQTokenizer, examples: Sequence[Example]) -> list[Example]:
    """The same with the codes that the true pictures give now.

    Where rounding changed some of a picture's codes, those of the shard stay.

    Raises:
        InconsistentError: when more codes than that are others.
    """
    result = []
    for each in examples:
        codes = each.codes
        if each.picture is not None:
            codes = vq.encode_images([each.picture])[0]  # (h, w)
            same = float((codes == each.codes).mean()) if codes.shape == each.codes.shape else 0.0
            if same < _MIN_SAME_CODES:
                raise _inconsistent(
                    "loss",
                    f"the picture of {each.key} gives only {same:.0%} of the codes again that its "
                    "shard has",
                )
            if same < 1:
                codes = each.codes
        result.append(replace(each, codes=codes))
    return result


def check_losses(run: Run, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Compare the loss of codes that are written one by one with that of the shards' packed rows.

    Raises:
        InconsistentError: when they differ.
    """
    texts, codes = [each.text for each in examples], [each.codes for each in examples]
    own = float(picture_nats(run, texts, codes).sum())
    packed = float(codes_nats(run, rows).sum())
    if not abs(own - packed) <= _MAX_NATS * abs(own):  # NaN is no agreement
        raise _inconsistent(
            "loss",
            f"the codes of {len(examples)} held-out pictures cost {own:.4f} nats after their texts "
            f"when they are encoded and written one by one, and {packed:.4f} in the shards' packed "
            "rows",
        )


def check_pictures(
    vq: VQTokenizer,
    vocabulary: Vocabulary,
    examples: Sequence[Example],
    documents: Sequence[Written],
) -> None:
    """Compare pictures that are decoded from the model's tokens with the tokenizer's own.

    Args:
        vq: the tokenizer.
        vocabulary: reads the tokens.
        examples: whose reconstructions are taken.
        documents: of the examples, in any order.

    Raises:
        InconsistentError: when they differ.
    """
    read = []
    for document in documents:
        segments = read_document(document.tokens.tolist(), vocabulary)
        read += [codes_of(each, vocabulary) for each in segments if each.modality == "image"]
    if len(read) != len(examples):
        raise _inconsistent("decoding", f"{len(examples)} pictures are written, {len(read)} read")
    found = _levels(vq, read)
    wanted = _levels(vq, [each.codes for each in examples])
    for each, levels in zip(examples, wanted, strict=True):
        # Packing has its own order.
        same = [number for number, codes in enumerate(read) if np.array_equal(codes, each.codes)]
        differences = np.abs(found[same] - levels).max(axis=(1, 2, 3))  # (same,)
        if not same or differences.max() > _MAX_LEVEL:
            far = f"; they differ by {differences.max()} of 256 levels" if same else ""
            raise _inconsistent(
                "decoding",
                f"what is decoded from the model's tokens is not the tokenizer's reconstruction of "
                f"{each.key}{far}",
            )


@torch.no_grad()
def check_cache(model: Decoder, vocabulary: Vocabulary, documents: Sequence[Written]) -> None:
    """Compare the logits of codes that are read one after another with those of one pass.

    Args:
        model: in evaluation mode.
        vocabulary: its id space.
        documents: each with one picture, whose first codes are read.

    Raises:
        InconsistentError: when they differ.
    """
    ids, pad = vocabulary.image, vocabulary.special("<pad>")
    device = next(model.parameters()).device
    starts = [int(np.argmax((each.tokens >= ids.start) & (each.tokens < ids.stop)))
              for each in documents]  # fmt: skip
    num_codes = [
        int(((each.tokens >= ids.start) & (each.tokens < ids.stop)).sum()) for each in documents
    ]
    num_steps = min(*num_codes, _MAX_STEPS)
    length = max(len(each.tokens) for each in documents)
    batch = collate([row_of(each, seq_len=length, pad=pad) for each in documents], device)
    whole = model(
        batch.tokens, positions=batch.positions, places=batch.places, mask=batch.mask
    )  # (n, T, V)
    prompts = [
        Written(each.tokens[:start], each.weights[:start], each.places[:start])
        for each, start in zip(documents, starts, strict=True)
    ]
    continuation = Continuation(model, vocabulary, prompts, max_new_tokens=num_steps)
    number = torch.arange(len(documents), device=device)
    place = torch.tensor(starts, device=device)  # (n,) of the next code
    for step in range(num_steps):
        difference = float((continuation.logits - whole[number, place - 1]).abs().max())
        if not difference <= _MAX_LOGIT:
            raise _inconsistent(
                "sampling",
                f"after {step} codes of a picture the logits with cached keys and values differ by "
                f"{difference:.2g} from those without",
            )
        if step < num_steps - 1:
            continuation.append(batch.tokens[number, place])
            place = place + 1


def _read_both_ways(
    run: Run, manifest: Manifest, pictures: Mapping[str, Image.Image], num_pictures: int
) -> tuple[list[Example], list[Row]]:
    """The first held-out samples as their files say, and packed rows of them as training has it."""
    first = run.settings.tasks.model_copy(update={"image": ImageTaskSettings()})
    settings = run.settings.model_copy(update={"tasks": first})
    files = open_files(settings, manifest)
    builder = RowBuilder(settings, files, manifest.vocabulary)
    make = document_maker(settings, files, manifest.vocabulary, "image", builder.writer)
    examples: list[Example] = []
    documents: list[Document] = []
    for shard in numbers_of(manifest, "image", "validation"):
        path = manifest.folder / manifest.shards[shard].file
        left = num_pictures - len(examples)
        for number, sample in enumerate(islice(read_shard(path), left)):
            if own := make(shard, number, fixed):
                documents += own
                examples.append(_example(sample, pictures))
    lengths = np.array([document.length for document in documents], np.int64)
    packed = pack(lengths, seq_len=settings.seq_len)
    rows = builder.build([[documents[number] for number in row.tolist()] for row in packed])
    # A damaged shard that may be skipped is padding in the rows.
    return ([], []) if builder.num_bad else (examples, rows)


def _example(sample: Sample, pictures: Mapping[str, Image.Image]) -> Example:
    texts = (each for each in sample.segments if isinstance(each, TextSegment))
    images = (each for each in sample.segments if isinstance(each, ImageSegment))
    known = (pictures[each] for each in sample.metadata.get("record_ids", ()) if each in pictures)
    return Example(
        key=sample.key,
        text=next(texts).captions[0].text,
        codes=next(images).codes,
        picture=next(known, None),
    )


def _documents(row: Row) -> Iterator[Written]:
    """The documents of a row as they were written."""
    for number in range(1, int(row.documents.max()) + 1):
        own = row.documents == number
        yield Written(row.tokens[own], row.weights[own], row.places[own])


def _levels(vq: VQTokenizer, codes: Sequence[np.ndarray]) -> np.ndarray:
    """(n, H, W, 3) int64, what codes decode to."""
    pictures = vq.decode_images(np.stack(codes))
    return np.stack([np.asarray(picture.convert("RGB"), np.int64) for picture in pictures])


def _inconsistent(what: str, found: str) -> InconsistentError:
    return InconsistentError(
        f"the check of consistency failed ({what}): {found}",
        {
            "loss": "The codes, their order in a row, or the tokenizer of the texts or pictures is "
            "not what the shards were written with.",
            "decoding": "The order of the codes is not what the shards were written with.",
            "sampling": "What is drawn would not be what was trained: the cache is at fault.",
        }[what],
        exit_code=FAILED,
    )
