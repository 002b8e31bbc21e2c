"""The dataset card: README.md with Hugging Face's YAML, and the licences that it links to.

The card states what the tables, the shards and the models hold, and nothing else; it has no time in
it, so that an unchanged corpus keeps its card to the byte.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from pipeline.calibration import describe, read_calibration
from pipeline.engine.corpus import Corpus
from pipeline.engine.schemas import TABLES
from pipeline.engine.storage import commit_text, read_json
from pipeline.errors import UserError
from pipeline.ledger.warnings import warnings
from pipeline.publish import facts
from pipeline.publish.diversity import STAYS, text_diversity
from pipeline.publish.limits import known_limits
from pipeline.publish.rendering import environment
from pipeline.synthesis.diversity import NEAR, Embed
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.settings import SynthesisSettings

CARD_FILE = "README.md"
LICENCES_FILE = "LICENSE.md"

_MAX_RIGHTS = 100
"""Rows of the table of licences; the table `records` has them all."""

_HUB_LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "etalab-2.0", "gpl-2.0",
    "gpl-3.0", "isc", "mit", "mpl-2.0", "ofl-1.1", "unlicense", "unknown", "wtfpl", "zlib",
))  # fmt: skip
"""SPDX names (in small letters) that the Hub knows: huggingface/hub-docs,
docs/hub/repositories-licenses.md. Any other is `other` with a name and a link."""

_SEVERAL = "several-see-the-link"
"""In the place of a licence's name."""
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_ENGLISH = frozenset({"openmoji", "pydoc", "shapes"})
"""Kinds of sources whose texts are known to be English; of others the language is not known."""

_GENERATED = frozenset({"shapes"})
"""Kinds of sources whose captions a program writes; others' are taken as they were found."""


def write_card(corpus: Corpus, *, embed: Embed | None) -> Path:
    """Write the card and the licences of a corpus, and return the card's path.

    Args:
        corpus: one that has been filled to its end.
        embed: an encoder for the spread of the LLM's texts; None leaves it out.

    Raises:
        UserError: when the corpus has no shards, which are what the card describes.
    """
    streams = facts.stream_facts(corpus)
    if not streams or not facts.shard_list(corpus):
        message = f"{corpus.root} has no shards yet, so there is nothing to put on a card"
        raise UserError(message, "Run `anymix run RECIPE` to the end first.")
    rights, num_more_rights = facts.rights_facts(corpus, limit=_MAX_RIGHTS)
    shown = {"rights": rights, "num_more_rights": num_more_rights}
    commit_text(corpus.root / LICENCES_FILE, _render("licences.md.jinja2", **shown))
    body = _render("card.md.jinja2", **shown, **_body(corpus, streams, embed))
    card = DatasetCard(f"---\n{_metadata(corpus, streams).to_yaml()}\n---\n\n{body}")
    commit_text(corpus.root / CARD_FILE, str(card))
    return corpus.root / CARD_FILE


def size_category(count: int) -> str:
    """The Hub's name for a number of samples: `n<1K`, `1K<n<10K`, … `n>1T`."""
    for power, upper in enumerate(_SIZES, start=3):
        if count < 10**power:
            return f"{_SIZES[power - 4]}<n<{upper}" if power > 3 else f"n<{upper}"
    return f"n>{_SIZES[-1]}"


def _metadata(corpus: Corpus, streams: Sequence[facts.StreamFacts]) -> DatasetCardData:
    kinds = {source["kind"] for source in corpus.recipe["sources"]}
    written = any(writer.num_kept for writer in facts.writer_facts(corpus))
    generated = written or bool(kinds & _GENERATED)
    creators = ["found"] if kinds - _GENERATED else []
    creators += ["machine-generated"] if generated else []
    names = [name for name in facts.STREAMS if name in {stream.stream for stream in streams}]
    pictures, sounds = not {"image", "mixed"}.isdisjoint(names), "audio" in names
    tasks = ["text-to-image", "image-to-text", "any-to-any"] if pictures else []
    tasks += ["text-to-audio"] if sounds else []
    tags = ["webdataset", "text", *(["image", "image-tokens", "any-to-any"] if pictures else [])]
    return DatasetCardData(
        pretty_name=corpus.recipe["name"],
        language=["en"] if _is_english(corpus.recipe) else None,
        annotations_creators=creators,
        language_creators=list(creators),  # YAML would make an alias of the same list
        size_categories=[size_category(sum(stream.num_samples for stream in streams))],
        task_categories=tasks + (["text-generation"] if "text" in names else []),
        tags=tags + (["audio"] if sounds else []) + (["synthetic"] if generated else []),
        **_licence(facts.licences(corpus)),
        configs=[
            _config(corpus, name, streams) | ({"default": True} if name == names[0] else {})
            for name in names
        ],
        dataset_info=[_info(name, streams) for name in names],
    )


def _is_english(recipe: Mapping[str, Any]) -> bool:
    return {source["kind"] for source in recipe["sources"]} <= _ENGLISH


def _licence(licences: Sequence[str]) -> dict[str, Any]:
    """The licences of the records that stay, as the Hub wants them said.

    Each record has one of them, so several are no licence with a name: the link lists them.
    """
    names = sorted({licence.lower() for licence in licences})
    if len(names) == 1 and names[0] in _HUB_LICENCES:
        return {"license": names[0]}
    name = re.sub(r"[^a-z0-9.]+", "-", names[0]).strip("-") if len(names) == 1 else _SEVERAL
    return {"license": "other", "license_name": name, "license_link": LICENCES_FILE}


def _config(corpus: Corpus, stream: str, streams: Sequence[facts.StreamFacts]) -> dict[str, Any]:
    """What `datasets` loads under the name of a stream."""
    folder = _shards_folder(corpus)
    patterns = {"train": f"{stream}-[0-9]*.tar", "validation": f"{stream}-validation-*.tar"}
    splits = [row.split for row in streams if row.stream == stream]
    return {
        "config_name": stream,
        "data_files": [{"split": split, "path": f"{folder}/{patterns[split]}"} for split in splits],
    }


def _info(stream: str, streams: Sequence[facts.StreamFacts]) -> dict[str, Any]:
    """Sizes by split. Features are left to `datasets`, which reads them off the first samples."""
    rows = [row for row in streams if row.stream == stream]
    total = sum(row.size_bytes for row in rows)
    return {
        "config_name": stream,
        "splits": [
            {"name": row.split, "num_bytes": row.size_bytes, "num_examples": row.num_samples}
            for row in rows
        ],
        "download_size": total,
        "dataset_size": total,
    }


def _body(
    corpus: Corpus, streams: Sequence[facts.StreamFacts], embed: Embed | None
) -> dict[str, Any]:
    """What the template of the text may use."""
    recipe = corpus.recipe
    vocabulary = read_json(_shards(corpus) / "vocabulary.json")
    writers = facts.writer_facts(corpus)
    texts = facts.text_outcome(corpus)
    return {
        "recipe": recipe,
        "records": facts.record_outcome(corpus),
        "texts": texts,
        "streams": streams,
        "shards": _shards_folder(corpus),
        "example": _example(streams),
        "ranges": vocabulary["ranges"],
        "tables": [
            (name, [(f.name, str(f.type), f.nullable, f.metadata[b"description"].decode())
                    for f in schema])
            for name, schema in TABLES.items()
        ],
        "models": facts.model_facts(corpus),
        "vq": facts.vq_metrics(corpus),
        "rules": facts.rule_facts(corpus),
        "calibration": read_calibration(corpus),
        "describe_calibration": describe,
        "warnings": warnings(corpus),
        "writers": writers,
        "diversity": text_diversity(corpus, STAYS, embed=embed),
        "near": NEAR,
        "prompts": _prompts(corpus, {writer.kind: writer.prompt for writer in writers}),
        "limits": known_limits(
            recipe,
            languages=None if _is_english(recipe) else facts.languages(corpus),
            has_llm_texts=bool(texts.num_kept),
            has_sounds="audio" in {stream.stream for stream in streams},
        ),
    }  # fmt: skip


def _example(streams: Sequence[facts.StreamFacts]) -> dict[str, Any]:
    """The stream and split that the card's example loads, and its shards in brace notation."""
    order = {name: place for place, name in enumerate(facts.STREAMS)}
    chosen = min(streams, key=lambda row: (order[row.stream], row.split))
    prefix = chosen.stream if chosen.split == "train" else f"{chosen.stream}-{chosen.split}"
    last = chosen.num_shards - 1
    numbers = f"{{000000..{last:06}}}" if last else "000000"
    return {**dataclasses.asdict(chosen), "files": f"{prefix}-{numbers}.tar"}


def _prompts(corpus: Corpus, used: Mapping[str, str]) -> dict[str, str]:
    """By kind, the template that its texts came from; none that is not known any more.

    Args:
        corpus: its recipe names the templates.
        used: by kind, the fingerprint of the prompt that its texts name.
    """
    path = corpus.root / "recipe.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))["synthesis"]
    try:
        prompts = load_prompts(SynthesisSettings.model_validate(settings))
    except UserError:  # a template of the user's own that has been moved or changed for the worse
        return {}
    return {
        kind: prompts.templates[kind]
        for kind, print_ in used.items()
        if prompts.fingerprint_of(kind) == print_
    }


def _shards(corpus: Corpus) -> Path:
    assert corpus.shards is not None  # noqa: S101 - write_card has checked it
    return corpus.shards


def _shards_folder(corpus: Corpus) -> str:
    return _shards(corpus).relative_to(corpus.root).as_posix()


def _render(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever a template shows
    return environment().get_template(template).render(**values)
