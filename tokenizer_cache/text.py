"""The text tokenizer: trained on the corpus, or any `tokenizer.json` that somebody has published.

The trained one is byte-level BPE (Sennrich et al., arXiv:1508.07909).

It knows no special tokens. A text that spells `<img>` is bytes like any other, so that no caption
can open an image in the model's sequence; special ids exist only in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.stage import FitInputs, Progress
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import connect
from pipeline.errors import StarvedError, UserError
from tokenizer_cache.hub import hub_file
from tokenizer_cache.settings import TextSettings
from tokenizer_cache.vocabulary import TokenizerDescription

TOKENIZER = "tokenizer.json"
METRICS = "metrics.json"

_ROWS_PER_FETCH = 1000


class TextTokenizer:
    """Text to ids and back; `decode(encode(text))` is the text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Somebody's tokenizer has special tokens: to it, too, a text that spells one is a text.
        tokenizer.encode_special_tokens = True
        # And what its model was trained with: no text is cut, filled up or split at random here.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for chance in ("dropout", "alpha", "nbest_size"):  # of BPE and Unigram
            if getattr(tokenizer.model, chance, None) is not None:
                setattr(tokenizer.model, chance, None)
        self._tokenizer = tokenizer
        self._num_tokens = 1 + max(tokenizer.get_vocab().values())

    @property
    def num_tokens(self) -> int:
        """Ids run from 0 to `num_tokens` - 1."""
        return self._num_tokens

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def save(self, path: Path) -> None:
        """Write it as a `tokenizer.json`."""
        self._tokenizer.save(str(path))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become the replacement character."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def fit(settings: TextSettings, inputs: FitInputs, folder: Path) -> Iterator[Progress]:
    """Train on the texts of the train split and save `tokenizer.json` and `metrics.json`.

    Reads `records` and `variants`. The same texts give the same file, whatever their order. With
    `weights` the tokenizer is the one that they name, and the texts only measure it.

    Raises:
        UserError: when the train split has no text, or there is no such tokenizer.
    """
    if settings.weights:
        tokenizer = _read(settings.weights)
    else:
        tokenizer = _train(settings, _texts(inputs, "train"))
    TextTokenizer(tokenizer).save(folder / TOKENIZER)
    loaded = load_text(folder)
    for split in ("validation", "train"):  # A small corpus may have nothing held out.
        bytes_per_token = _bytes_per_token(loaded, _texts(inputs, split))
        if bytes_per_token is not None:
            break
    else:
        raise StarvedError("the text tokenizer cannot be trained: the corpus has no text")
    figures = {"num_tokens": loaded.num_tokens, "bytes_per_token": bytes_per_token}
    commit_json(folder / METRICS, {**figures, "split": split})
    yield Progress(done=1, total=1, figures=figures)


def load_text(folder: Path) -> TextTokenizer:
    """The tokenizer that `fit` saved."""
    return TextTokenizer(Tokenizer.from_file(str(folder / TOKENIZER)))


def describe_text(folder: Path) -> TokenizerDescription:
    """What the vocabulary must know of the text tokenizer in `folder`."""
    return TokenizerDescription(
        modality="text",
        num_tokens=load_text(folder).num_tokens,
        fingerprint=fingerprint(tokenizer=hash_file(folder / TOKENIZER)),
    )


def _read(weights: str) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(hub_file(weights, TOKENIZER)))
    except Exception as error:  # tokenizers has no other type for a file that is none
        raise UserError(
            f"{weights} holds no text tokenizer: {error}",
            f"text_tokenizer.weights is a folder or a name on the hub with {TOKENIZER}.",
        ) from error


def _train(settings: TextSettings, texts: Iterator[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(inputs: FitInputs, split: str) -> Iterator[str]:
    """All captions, further captions, text-only records and variants of a split."""
    rows = connect(inputs.tables).execute(
        """
        SELECT caption FROM records WHERE split = $split
        UNION ALL
        SELECT further.text FROM records, unnest(more_captions) AS more(further)
        WHERE split = $split
        UNION ALL
        SELECT text FROM variants JOIN records USING (record_id) WHERE split = $split
        """,
        {"split": split},
    )
    while batch := rows.fetchmany(_ROWS_PER_FETCH):
        for (text,) in batch:
            yield text


def _bytes_per_token(tokenizer: TextTokenizer, texts: Iterator[str]) -> float | None:
    """UTF-8 bytes that a token stands for on average; None without any text."""
    num_bytes = num_tokens = 0
    for text in texts:
        num_bytes += len(text.encode())
        num_tokens += len(tokenizer.encode(text))
    return num_bytes / num_tokens if num_tokens else None
