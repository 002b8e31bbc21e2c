"""What a corpus can say about itself in numbers: the source of the card and of the report.

Everything is counted from the live tables, the manifest of the shards and the files of the fitted
models. What these do not hold is not known, and is said nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine.corpus import MODEL_FILE, Corpus
from pipeline.engine.schemas import CAPTION_KINDS
from pipeline.engine.storage import read_json
from pipeline.selection.cuts import CUTS_FILE, Cuts, read_cuts
from pipeline.selection.sentences import Sentence, sentences
from pipeline.selection.settings import SelectSettings
from pipeline.words import LEFT_OUT_WITH_RECORD

STREAMS = ("image", "mixed", "audio", "text")
KEPT = """
    WITH shipped AS (
        -- A record's id holds no slash; the name of a further caption may.
        SELECT stream, split_part(text, '/', 1) AS record_id,
            substr(text, strpos(text, '/') + 1) AS variant_id
        FROM (SELECT stream, unnest(variant_ids) AS text FROM samples)
    ), kept AS (
        FROM shipped UNION ALL BY NAME
        SELECT stream, record_id, variant_id FROM selection
        WHERE NOT EXISTS (FROM samples)
    )
"""
"""The texts that stay, with their stream: what the shards hold, or the selection before them."""

_KEPT_RECORDS = f"""
    WITH kept AS (
        SELECT stream, unnest(record_ids) AS record_id FROM samples
        UNION ALL BY NAME
        SELECT DISTINCT stream, record_id FROM selection
        WHERE kind IN {CAPTION_KINDS} AND NOT EXISTS (FROM samples)
    )
"""
"""The same for records: each is in one stream, whatever the LLM wrote about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How many records or texts a stage left out for one reason."""

    stage: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a number of things ended: `given` = `num_lost` + `num_kept` + `num_open`.

    Attributes:
        given: how many there were.
        losses: how many were left out, in the order of the stages, the commonest reason first.
        kept: how many are in the shards (or will be, before there are any), by where they are.
    """

    given: int
    losses: Sequence[Loss]
    kept: Mapping[str, int]

    @property
    def num_lost(self) -> int:
        """How many were left out."""
        return sum(loss.count for loss in self.losses)

    @property
    def num_kept(self) -> int:
        """How many stay."""
        return sum(self.kept.values())

    @property
    def num_open(self) -> int:
        """How many no stage has decided on yet; 0 in a corpus that is complete."""
        return self.given - self.num_lost - self.num_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One stream and split of the shards."""

    stream: str
    split: str
    num_shards: int
    num_samples: int
    num_records: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsFacts:
    """The records of a source that share a licence and an attribution."""

    source: str
    licence: str
    attribution: str
    num_records: int
    num_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFacts:
    """One limit of the selection, and how many records and texts of kept records it left out."""

    says: Sentence
    num_records: int
    num_texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterFacts:
    """What one LLM wrote of one kind, from one prompt."""

    model: str
    prompt: str
    kind: str
    num_written: int
    num_kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model that was fitted on the corpus: its recipe's fingerprint and its files' hash."""

    name: str
    fingerprint: str
    content: str


def record_outcome(corpus: Corpus) -> Outcome:
    """Where the records of the sources ended, by stream."""
    return Outcome(
        given=sum(part.num_records for part in corpus.parts),
        losses=_losses(corpus, "variant_id IS NULL"),
        kept=dict(
            corpus.query(
                f"{_KEPT_RECORDS} SELECT stream, count(*) FROM kept GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        ),
    )


def text_outcome(corpus: Corpus) -> Outcome:
    """Where the texts that the LLM was asked for ended, by kind and form.

    A text that was written again and then taken has not failed; one that never was has failed for
    the reason of its last attempt.
    """
    ((num_written,),) = corpus.query("SELECT count(*) FROM variants").fetchall()
    unwritten = _losses(
        corpus,
        "stage = 'synthesize' AND (record_id, form) NOT IN (SELECT (record_id, form) FROM variants)"
        " QUALIFY row_number() OVER (PARTITION BY record_id, form ORDER BY attempt DESC) = 1",
    )
    of_variants = "(record_id, variant_id) IN (SELECT (record_id, variant_id) FROM variants)"
    ((with_record,),) = corpus.query(
        "SELECT count(*) FROM variants"
        " WHERE record_id IN (SELECT record_id FROM rejects WHERE variant_id IS NULL)"
    ).fetchall()
    losses = [*unwritten, *_losses(corpus, f"stage != 'synthesize' AND {of_variants}")]
    if with_record:
        losses.append(Loss(stage="select", reason=LEFT_OUT_WITH_RECORD, count=with_record))
    return Outcome(
        given=num_written + sum(loss.count for loss in unwritten),
        losses=losses,
        kept=dict(
            corpus.query(
                f"{KEPT} SELECT kind, count(*) FROM kept JOIN variants"
                " USING (record_id, variant_id) GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        ),
    )


def stream_facts(corpus: Corpus) -> list[StreamFacts]:
    """The streams and splits that the shards have; none before there are shards."""
    sizes: dict[tuple[str, str], int] = {}
    for shard in shard_list(corpus):
        key = (shard["stream"], shard["split"])
        sizes[key] = sizes.get(key, 0) + shard["size_bytes"]
    rows = corpus.query(
        "SELECT stream, split, count(DISTINCT shard_sha256), count(*), sum(len(record_ids))::BIGINT"
        " FROM samples GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    return [
        StreamFacts(
            stream=stream,
            split=split,
            num_shards=num_shards,
            num_samples=num_samples,
            num_records=num_records,
            size_bytes=sizes.get((stream, split), 0),
        )
        for stream, split, num_shards, num_samples, num_records in rows
    ]


def shard_list(corpus: Corpus) -> list[dict[str, Any]]:
    """The shards as the manifest lists them; none before there is one."""
    return corpus.published_shards() or []


def rights_facts(corpus: Corpus, *, limit: int) -> tuple[list[RightsFacts], int]:
    """Licences and attributions by source, with the records that each covers.

    Args:
        corpus: any corpus.
        limit: how many to return, those with the most records; a folder of pictures may name
            another author for each of them.

    Returns:
        These, and how many more there are.
    """
    rows = corpus.query(
        f"""
        {KEPT}, stays AS (SELECT DISTINCT record_id FROM kept)
        SELECT source, licence, attribution, count(*) AS records, count(stays.record_id),
               count(*) OVER ()
        FROM records LEFT JOIN stays USING (record_id) GROUP BY ALL
        ORDER BY records DESC, source, licence, attribution LIMIT {limit}
        """
    ).fetchall()
    found = [
        RightsFacts(source=source, licence=licence, attribution=by, num_records=n, num_kept=kept)
        for source, licence, by, n, kept, _ in rows
    ]
    return found, rows[0][-1] - len(rows) if rows else 0


def licences(corpus: Corpus) -> list[str]:
    """The licences of the records that stay."""
    rows = corpus.query(
        f"{KEPT} SELECT DISTINCT licence FROM records"
        " WHERE record_id IN (SELECT record_id FROM kept) ORDER BY ALL"
    ).fetchall()
    return [licence for (licence,) in rows]


def languages(corpus: Corpus) -> dict[str, int]:
    """How many of the texts that stay are in each language, the commonest first; ISO 639-1."""
    rows = corpus.query(
        f"{KEPT} SELECT language, count(*) AS num FROM kept"
        " JOIN scores USING (record_id, variant_id)"
        " WHERE language IS NOT NULL GROUP BY ALL ORDER BY num DESC, language"
    ).fetchall()
    return dict(rows)


def rule_facts(corpus: Corpus) -> list[RuleFacts]:
    """The limits of the selection, in the order in which they are tried."""
    counts = corpus.query(
        "SELECT reason, coalesce(detail, ''), count(*) FILTER (variant_id IS NULL),"
        " count(variant_id) FROM rejects WHERE stage = 'select' GROUP BY ALL"
    ).fetchall()
    facts = []
    for says in sentences(SelectSettings.model_validate(corpus.recipe["select"]), _cuts(corpus)):
        own = [row[2:] for row in counts if row[0] == says.reason and says.words in row[1]]
        facts.append(
            RuleFacts(
                says=says,
                num_records=sum(records for records, _ in own),
                num_texts=sum(texts for _, texts in own),
            )
        )
    return facts


def _cuts(corpus: Corpus) -> Cuts:
    """What is pinned of the selection; nothing before it is fitted."""
    folder = corpus.models.get("cuts")
    return read_cuts(folder) if folder and (folder / CUTS_FILE).exists() else {}


def clip_metrics(corpus: Corpus) -> dict[str, Any] | None:
    """What the small CLIP's training measured; None before it is fitted."""
    found: dict[str, Any] | None = _model_json(corpus, "clip", "metrics.json")
    return found


def vq_metrics(corpus: Corpus) -> dict[str, Any] | None:
    """What the image tokenizer's training measured; None before it is fitted."""
    found: dict[str, Any] | None = _model_json(corpus, "vq", "metrics.json")
    return found


def text_metrics(corpus: Corpus) -> dict[str, Any] | None:
    """What the text tokenizer's training measured; None before it is fitted."""
    found: dict[str, Any] | None = _model_json(corpus, "text", "metrics.json")
    return found


def writer_facts(corpus: Corpus) -> list[WriterFacts]:
    """Which LLM wrote how many texts of which kind."""
    rows = corpus.query(
        f"""
        {KEPT}
        SELECT variants.model, variants.prompt, variants.kind, count(*), count(kept.variant_id)
        FROM variants LEFT JOIN kept USING (record_id, variant_id) GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    return [
        WriterFacts(model=model, prompt=prompt, kind=kind, num_written=n, num_kept=kept)
        for model, prompt, kind, n, kept in rows
    ]


def model_facts(corpus: Corpus) -> list[ModelFacts]:
    """The models that were fitted on the corpus, in the order of the flow."""
    return [
        ModelFacts(
            name=name, fingerprint=folder.name, content=read_json(folder / MODEL_FILE)["content"]
        )
        for name, folder in corpus.models.items()
        if (folder / MODEL_FILE).exists()
    ]


_STAGES = (
    "ingest",
    "synthesize",
    "measure",
    "score",
    "select",
    "tokenize",
    "tokenize-audio",
    "shards",
)


def _losses(corpus: Corpus, condition: str) -> list[Loss]:
    rows = corpus.query(
        "SELECT stage, reason, count(*) FROM"
        f" (SELECT stage, reason FROM rejects WHERE {condition}) GROUP BY ALL"
    ).fetchall()
    losses = [Loss(stage=stage, reason=reason, count=count) for stage, reason, count in rows]
    place = {stage: number for number, stage in enumerate(_STAGES)}
    return sorted(losses, key=lambda x: (place.get(x.stage, len(place)), -x.count, x.reason))


def _model_json(corpus: Corpus, model: str, name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    folder = corpus.models.get(model)
    return read_json(folder / name) if folder and (folder / name).exists() else None
