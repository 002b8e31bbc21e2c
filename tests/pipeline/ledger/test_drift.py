import json

import numpy as np
import pytest

from jobs.run import open_corpus
from pipeline.engine.schemas import SCORES
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.token_schemas import TOKENS
from pipeline.ledger import drift as drifting
from pipeline.ledger.drift import ks_distance


def drift_of(root):
    _, corpus = open_corpus(root)
    return {row["model"]: row for row in drifting.drift(corpus, corpus.connect())}


def fitted_without(root, model, parts):
    """As if a model had been fitted before some parts came."""
    _, corpus = open_corpus(root)
    path = corpus.models[model] / "model.json"
    value = json.loads(path.read_text())
    value["fitted_on"] = {
        table: [file for file in files if not any(part in file for part in parts)]
        for table, files in value["fitted_on"].items()
    }
    path.write_text(json.dumps(value))


def fill_column(path, column, value, schema, num_rows=40):
    """Write the file anew with many rows whose column has values around one."""
    row = read_table(path).to_pylist()[0]
    name = "record_id" if "record_id" in row else "image_id"
    values = value + np.linspace(-0.1, 0.1, num_rows)
    rows = [{**row, name: f"{n:04x}", column: values[n]} for n in range(num_rows)]
    write_table(path, rows, schema)


@pytest.fixture
def parts(made):
    """The parts of the folder, with pictures in them."""
    _, corpus = open_corpus(made)
    return [
        part.name
        for part in corpus.parts
        if read_table(corpus.tables["tokens"][part.name]).num_rows
    ]


def test_a_model_that_has_seen_everything_needs_no_refit(made):
    drift = drift_of(made)
    assert set(drift) == {"synthesis", "clip", "captions", "cuts", "vq", "text"}
    assert not any(row["refit"] or row["new_records"] for row in drift.values())


def test_a_model_that_was_fitted_on_nothing_needs_no_refit(root):
    _, corpus = open_corpus(root)
    path = corpus.models["synthesis"] / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fitted_on": {}}))
    assert "synthesis" not in drift_of(root)


def test_mostly_new_records_justify_a_refit(root, made):
    _, corpus = open_corpus(made)
    fitted_without(root, "text", [part.name for part in corpus.parts[:-1]])
    row = drift_of(root)["text"]
    assert row["new_share"] > 0.5
    assert row["refit"]
    assert "`anymix run --refit text` looks justified" in row["advice"]


@pytest.mark.parametrize(("new", "refit"), [(0.9, True), (0.3, False)])
def test_scores_that_have_moved_justify_a_refit(root, parts, new, refit):
    _, corpus = open_corpus(root)
    for part, value in zip(parts, [new, *[0.3] * len(parts)], strict=False):
        fill_column(corpus.tables["scores"][part], "clip_score", value, SCORES)
    fitted_without(root, "clip", parts[:1])
    row = drift_of(root)["clip"]
    (measure,) = row["measures"]
    assert measure["mean_new"] == pytest.approx(new, abs=0.01)
    assert (row["refit"], row["new_share"] < 0.5) == (refit, True)


def test_pictures_that_the_tokenizer_renders_worse_justify_a_refit(root, parts):
    _, corpus = open_corpus(root)
    for part, value in zip(parts, [0.9, *[0.4] * len(parts)], strict=False):
        fill_column(corpus.tables["tokens"][part], "squared_error", value, TOKENS)
    fitted_without(root, "vq", parts[:1])
    assert "squared error rose from 0.4 to 0.9" in drift_of(root)["vq"]["advice"]


def test_the_distance_of_two_distributions_is_that_of_their_steps():
    same = np.arange(10.0)
    assert ks_distance(same, same) == 0
    assert ks_distance(same, same + 100) == 1
    assert ks_distance(np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])) == 0.5
