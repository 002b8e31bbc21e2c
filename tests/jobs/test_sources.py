"""A whole corpus of tables, documents and texts with bad rows: nothing vanishes on the way."""

import json
import os
import random

import pytest
import yaml
from rich.console import Console

from jobs.progress import Reporter
from jobs.recipe import load_recipe
from jobs.run import fill, open_corpus
from pipeline.ledger.audit import audit
from pipeline.sources.shapes import draw
from tests.jobs.conftest import TINY
from tokenizer_cache.manifest import open_manifest
from trainer.evaluate.likelihood import pairs_of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    captions = []
    for index in range(90):
        image, caption = draw(index, size=32, seed=0)
        image.save(root / f"{index}.png")
        captions.append(caption)
    pairs = [{"caption": captions[index], "image": f"{index}.png"} for index in range(50)]
    lines = [json.dumps(pair) for pair in [*pairs, {"caption": None}]]
    (root / "pairs.jsonl").write_text("\n".join([*lines, "{broken"]))
    documents = []
    for index in range(50, 90, 4):
        images = [None, *(f"{index + place}.png" for place in range(4)), None]
        texts = [f"Page {index} begins.", *captions[index : index + 4], f"Page {index} ends."]
        rows = [[text, image] for text, image in zip(texts, images, strict=True)]
        segments = [
            {"type": kind, kind: value}
            for text, image in rows
            for kind, value in (("image", image), ("text", text))
            if value is not None
        ]
        documents.append(json.dumps({"segments": segments}))
    (root / "pages.jsonl").write_text("\n".join(documents))
    prose = random.Random(0)  # noqa: S311 - a test's filler
    words = ["the", "shape", "of", "a", "small", "red", "square", "on", "blue", "ground"]
    texts = [" ".join(prose.choices(words, k=12)) for _ in range(30)]
    (root / "prose.txt").write_text("\n\n".join(texts))
    recipe = yaml.safe_load(TINY) | {
        "sources": [
            {"kind": "table", "path": "pairs.jsonl", "image_column": "image"},
            {"kind": "interleaved", "path": "pages.jsonl"},
            {"kind": "text", "path": "*.txt", "per": "paragraph"},
        ],
        "select": {},
    }
    recipe["ingest"]["validation_share"] = 0.3
    (root / "r.yaml").write_text(yaml.safe_dump(recipe))
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    fill(load_recipe(root / "r.yaml"), root / "c", until=None, reporter=Reporter(console))
    return open_corpus(root / "c")[1]


def test_every_row_ends_in_the_shards_or_in_the_rejects(corpus):
    assert [finding for finding in audit(corpus) if finding.faults] == []
    ingested = "SELECT reason, count(*) FROM rejects WHERE stage = 'ingest' GROUP BY ALL ORDER BY 1"
    assert corpus.query(ingested).fetchall() == [
        ("ingest-no-caption", 1),
        ("ingest-row-malformed", 1),
    ]


def test_a_document_is_one_sample_with_its_pieces_in_order(corpus):
    documents = corpus.query(
        """
        SELECT list(position ORDER BY place), count(DISTINCT sample), any_value(stream) FROM (
            SELECT samples.key AS sample, stream, unnest(record_ids) AS record_id,
                generate_subscripts(record_ids, 1) AS place FROM samples
        ) JOIN records USING (record_id) WHERE document IS NOT NULL GROUP BY document
        """
    ).fetchall()
    assert len(documents) == 10
    for positions, num_samples, stream in documents:
        assert positions == sorted(positions)
        assert len(positions) > 1
        assert (num_samples, stream) == (1, "mixed")


def test_held_out_pictures_of_a_document_are_paired_with_their_own_texts(corpus):
    pairs = pairs_of(open_manifest(corpus.shards), "validation", 1000)
    assert pairs
    assert not any("Page" in pair.text for pair in pairs)
