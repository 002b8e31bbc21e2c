"""Corpora of earlier versions are taken over: what made their files still has the same name.

`fingerprints.json` holds what commit 983332f gave for each step, and the names of parts as they
have been since places are no part of them; that a part of 983332f keeps its name is tested with
the sources (`test_parts_of_rows.py`, `test_folder.py`). Every step is looked at by itself: what
it reads has a fixed name here, so that a change shows at the step that it is in, although all
steps below it are done again as well. After a change that is meant to redo a step,
`ANYMIX_WRITE_FINGERPRINTS=1 .venv/bin/python -m pytest tests/jobs/test_fingerprints.py` writes
the file, and its diff tells a reviewer what every corpus in the world will do again.
"""

import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from jobs import stages
from jobs.recipe import load_recipe
from pipeline.engine.corpus import MODEL_FILE, Corpus, PartFiles
from pipeline.engine.corpus_step import resolve_corpus_step
from pipeline.engine.fingerprint import hash_file
from pipeline.engine.parts import Part
from pipeline.engine.stage import CorpusStepSpec, FitSpec, StageSpec
from pipeline.engine.storage import commit_json
from tests.pipeline.sources.files import parts_of, write_json_lines, write_lines, write_parquet

GOLDEN = Path(__file__).with_name("fingerprints.json")
RECIPES = sorted(path.stem for path in Path("jobs/recipes").glob("*.yaml"))

REDONE = {
    # (recipe, step): why every corpus may do it again
    ("all", "synthesize"): "JSON is read out of more answers; they are judged again, none is asked",
    ("shapes", "vq"): "the recipe trains another tokenizer, which keeps shapes on coloured grounds",
    ("shapes", "text"): "the recipe has a smaller vocabulary",
    ("shapes", "select"): "the recipe keeps repeats, and fewer pictures for the mixed stream",
}
"""Differences from 983332f that are meant. None may be a step that the LLM's answers hang on."""

YOUNGER = {"janus-stages"}
"""Recipes that 983332f did not have; of these the file has what they gave at first."""

ABOVE_ANSWERS = {"ingest", "synthesis", "ask"}

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
    "789c63f8ffff3f0005fe02fe0def46b80000000049454e44ae426082"
)

OTHERS = {
    "sounds-and-servers": """
name: sounds-and-servers
sources: [{kind: sounds, path: pictures}, {kind: shapes}]
ingest: {images: reference, opt_outs: keep}
synthesis:
  backend: openai
  endpoint: {base_url: "http://localhost:1/v1"}
  model: a-model
  limit: null
  vision: true
  critics: {max_clip_loss: 0.1}
duplicates: {perceptual: 0.1, against: [{kind: shapes}]}
select: {rules: {clip_score: {quantile: 0.1}}, top: {score: clip_score, most: 10}}
""",
    "published": """
name: published
sources: [{kind: folder, path: pictures}]
score: {clip: {kind: open_clip, model: ViT-B-32, pretrained: openai}}
image_tokenizer: {kind: llamagen, weights: someone/weights}
audio_tokenizer: {kind: encodec, weights: someone/weights}
""",
}


def folder_of(root):
    """Files of every kind of source."""
    pictures = root / "pictures"
    for name in ("a", "b", "c"):
        write_lines(pictures / f"{name}.png", PIXEL)
        write_lines(pictures / f"{name}.txt", f"caption {name}")
    write_lines(root / "listed" / "x.png", PIXEL)
    write_lines(root / "listed" / "metadata.csv", "file_name,text,licence", "x.png,an x,CC0-1.0")
    write_lines(root / "table.csv", "caption,image", "one,pictures/a.png", "two,pictures/b.png")
    rows = [{"caption": name, "text": name, "id": name} for name in "xyz"]
    write_json_lines(root / "table.jsonl", *rows)
    write_json_lines(root / "pages.jsonl", {"texts": ["t", None], "images": [None, "a.png"]})
    write_lines(root / "prose" / "one.txt", "one", "", "two")
    (root / "saved").mkdir()
    write_parquet(root / "saved" / "train.parquet", {"text": ["a", "b"], "image": [PIXEL, PIXEL]})
    with tarfile.open(root / "samples.tar", "w") as tar:
        for name, content in (("0.png", PIXEL), ("0.txt", b"zero"), ("1.png", PIXEL)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return root


SOURCES = {
    "folder": {"kind": "folder", "path": "pictures"},
    "folder with metadata": {"kind": "folder", "path": "listed"},
    "huggingface": {"kind": "huggingface", "path": "saved"},
    "interleaved": {"kind": "interleaved", "path": "pages.jsonl"},
    "shapes": {"kind": "shapes", "num_records": 30},
    "table": {"kind": "table", "path": "table.csv", "image_column": "image"},
    "table of texts": {"kind": "table", "path": "table.jsonl", "key_column": "id"},
    "text": {"kind": "text", "path": "table.jsonl"},
    "text files": {"kind": "text", "path": "prose/*.txt"},
    "webdataset": {"kind": "webdataset", "path": "samples.tar"},
}


def part_names(root, settings):
    """The names of a source's parts, as if it lay in a folder ROOT."""
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "a", "sources": [settings]}))
    (source,) = load_recipe(recipe).sources
    moved = {
        str(root): "ROOT",
        hash_file(root / "saved/train.parquet"): "of any version of Parquet",
    }
    names = []
    for part in parts_of(source):
        slice_ = json.dumps({key: part.slice[key] for key in part.slice if key != "revision"})
        for here, anywhere in moved.items():
            slice_ = slice_.replace(here, anywhere)
        names.append(Part.of(source.name, json.loads(slice_), num_records=1).name)
    return names


def prints_of(recipe, root, monkeypatch):
    """What names each step's output, where everything that it reads has a fixed name."""
    monkeypatch.setattr(stages, "vocabulary", lambda *_: SimpleNamespace(fingerprint="vocabulary"))
    source = recipe.sources[0].name
    part = Part.of(source, {"content": "the part"}, num_records=1)
    corpus = Corpus(root=root, recipe=recipe.model_dump(mode="json"), parts=[part])
    prints = {}
    for step in stages.steps(recipe):
        match step:
            case StageSpec():
                extras = stages.part_extras(step, recipe, corpus)
                for values in extras.values():
                    for name in [each for each in values if " of " in each]:
                        values[name] = values[name].replace(str(root), "ROOT")
                corpus.resolve_stage(step, extras)
                prints[step.name] = corpus.tables[step.writes].prints[part.name]
                corpus.tables[step.writes].place(part.name, step.name)
            case FitSpec():
                corpus.resolve_fit(step)
                prints[step.name] = corpus.models[step.name].name
                commit_json(corpus.models[step.name] / MODEL_FILE, {"content": step.name})
            case CorpusStepSpec():
                prints[step.name] = resolve_corpus_step(corpus, step).index.stem
                corpus.tables[step.writes] = PartFiles(corpus.root / "tables" / step.writes)
                corpus.tables[step.writes].place(part.name, step.name)
    return prints | {"shards' folder": corpus.shards.name}


def golden(kind, name, found):
    """What 983332f gave; with ANYMIX_WRITE_FINGERPRINTS=1 what this version gives is written."""
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("ANYMIX_WRITE_FINGERPRINTS"):
        known.setdefault(kind, {})[name] = found
        GOLDEN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known[kind][name]


@pytest.mark.parametrize("name", [*RECIPES, *OTHERS])
def test_a_corpus_of_an_earlier_version_is_done_again_only_where_that_is_meant(
    name, tmp_path, monkeypatch
):
    folder_of(tmp_path)
    path = Path(f"jobs/recipes/{name}.yaml")
    if name in OTHERS:
        path = tmp_path / "recipe.yaml"
        path.write_text(OTHERS[name])
    changes = [f"sources.0.path={tmp_path}/pictures"] if name == "folder" else []
    found = prints_of(load_recipe(path, changes), tmp_path, monkeypatch)
    before = golden("steps", name, found)
    changed = {step for step in found.keys() | before.keys() if found.get(step) != before.get(step)}
    recipes = {name} if name in YOUNGER else {name, "all"}
    assert changed == {step for recipe, step in REDONE if recipe in recipes}
    assert not changed & ABOVE_ANSWERS, "an LLM would be asked again"


@pytest.mark.parametrize("name", SOURCES)
def test_the_parts_of_a_source_have_the_names_that_an_earlier_version_gave_them(name, tmp_path):
    found = part_names(folder_of(tmp_path), SOURCES[name])
    assert found == golden("parts", name, found)
