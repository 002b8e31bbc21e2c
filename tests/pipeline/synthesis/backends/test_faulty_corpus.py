"""Whole runs against a server that fails: nothing is lost, nothing doubled, and no key is seen."""

import os
import re
import subprocess
import sys
from collections import defaultdict

import pytest
from PIL import Image

from jobs.recipe import load_recipe
from jobs.run import open_corpus
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.tables import read_table
from pipeline.errors import FAILED, STOPPED, UserError
from tests.faults.ray_lines import without_ray_greeting
from tests.jobs.corpora import SMALL_MODELS, faults, run
from tests.pipeline.synthesis.backends.server import KEY, serving

pytestmark = pytest.mark.e2e
VARIABLE = "ANYMIX_TEST_KEY"

RECIPE = """\
name: faulty
sources:
  - {kind: folder, path: pictures, licence: CC0-1.0}
ingest: {rows_per_part: 16}
synthesis:
  limit: null
  backend: openai
  model: served
  shares: {caption: 1}
  attempts: 2
  critics: null
  endpoint: {base_url: URL, api_key_env: ANYMIX_TEST_KEY, timeout_s: 1, max_retries: 1}
run: {num_workers: 0}
"""

REJECTED = {
    "400-context": ("the prompt is too long for the LLM", "synthesis-prompt-too-long"),
    "refusal": ("the LLM refuses", "synthesis-refused"),
    "filtered": ("the LLM's server filters the answer", "synthesis-refused"),
    "503": ("the LLM's server answers 503 each time", "synthesis-server-error"),
    "close": ("the LLM's server closes the connection each time", "synthesis-server-error"),
    "hang": ("the LLM's server never answers", "synthesis-timeout"),
    "garbage": ("the LLM's server streams garbage", "synthesis-malformed-response"),
    "html": ("the LLM's server answers with a web page", "synthesis-malformed-response"),
    "400": ("the LLM's server answers 400", "synthesis-engine-error"),
    "not-json": ("the LLM's answer is no JSON", "synthesis-malformed-json"),
    "cut": ("the LLM's answer is cut at the limit", "synthesis-cut-off"),
    "empty": ("the LLM's answer is empty", "synthesis-empty"),
    "reasoning": ("the LLM spends all its tokens on reasoning", "synthesis-cut-off"),
    "error-200": (
        "the LLM's server answers each time with an error as if it were an answer",
        "synthesis-server-error",
    ),
}
"""What may befall a request each time, in words, and the reject code that it ends with."""

MENDED = {
    "500-once": "the LLM's server answers 500 for a moment",
    "close-once": "the LLM's server closes the connection once",
    "retry-after-seconds": "the LLM's server answers 429 with Retry-After",
    "retry-after-date": "the LLM's server answers 429 with a date to try again",
}


READ = {
    "no-usage": "the LLM's server does not count tokens",
    "thinking": "the LLM's answer is in a code fence after its reasoning",
    "parts": "the LLM's answer is a list of parts",
    "half-sign": "the LLM's answer has half an emoji",
}


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        connect_to_ray()
        yield
        ray.shutdown()


@pytest.fixture
def server():
    with serving() as faulty:
        yield faulty


def load(tmp_path, url, captions):
    """The recipe of some pictures with these captions."""
    pictures = tmp_path / "pictures"
    pictures.mkdir(exist_ok=True)
    for number, caption in enumerate(captions):
        colour = (5 * number % 256, 90, 255 - 3 * number % 256)
        Image.new("RGB", (32, 32), colour).save(pictures / f"{number:03}.png")
        (pictures / f"{number:03}.txt").write_text(caption)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("URL", url) + SMALL_MODELS)
    return load_recipe(path)


def reasons(root):
    """For each caption, the reasons of its rejected texts."""
    rows = open_corpus(root)[1].query(
        "SELECT caption, reason FROM records JOIN rejects USING (record_id) "
        "WHERE stage = 'synthesize'"
    )
    found = defaultdict(set)
    for caption, reason in rows.fetchall():
        found[caption].add(reason)
    return dict(found)


def everything_in(root):
    """All that the files of a corpus say, as text."""
    for path in root.rglob("*"):
        if path.suffix == ".parquet":
            yield str(read_table(path).to_pylist())
        elif path.is_file():
            yield path.read_bytes().decode("utf-8", errors="replace")


def test_faults_among_requests_lose_nothing_and_show_no_key(tmp_path, server, fault):
    met = {f"a picture with fault-{fault}": fault for fault in [*REJECTED, *MENDED, *READ]}
    captions = [*met, *(f"picture number {number}" for number in range(40))]
    root = tmp_path / "corpus"
    server.unknown_parameter = "seed"
    said = run(load(tmp_path, server.url, captions), root)
    assert faults(root) == []
    assert said.count('is now asked with drop_params: ["seed"]') == 1
    fault(
        "the LLM's server refuses how it is asked",
        "warning: synthesis.endpoint: the server has refused a request, and is now asked with "
        "NAME: VALUE. Put that into the recipe, and no run begins with a refusal.",
    )
    found = reasons(root)
    assert {met[caption]: codes for caption, codes in found.items() if caption in met} == {
        name: {reason} for name, (_, reason) in REJECTED.items()
    }
    assert set(found) <= set(met)
    for words, reason in REJECTED.values():
        fault(words, f"a reject `{reason}`", "nothing: the record stays with its own caption")
    for words in MENDED.values():
        fault(words, "nothing: it is asked again")
    for words in READ.values():
        fault(words, "nothing: the answer is read")
    assert said.count("does not say how many tokens it has used") == 1
    assert VARIABLE in (root / "recipe.yaml").read_text()
    assert all(KEY not in text for text in everything_in(root))
    assert KEY not in said


def test_server_that_dies_stops_the_run_and_nothing_is_rejected(tmp_path, server, fault):
    captions = [f"picture number {number}" for number in range(60)]
    recipe, root = load(tmp_path, server.url, captions), tmp_path / "corpus"
    server.answers_left = 20
    with pytest.raises(UserError, match=r"have failed; the last: .*503.*overloaded") as stop:
        run(recipe, root, until="synthesize")
    answered = set(server.answered)
    assert len(answered) == 20
    server.answers_left = None
    run(recipe, root, until="synthesize")
    assert reasons(root) == {}
    assert all(server.tries[chat] == 1 for chat in answered)
    fault(
        "the LLM's server dies during a run",
        f"exit code {stop.value.exit_code}: synthesis: N of the last 50 requests have failed; the "
        "last: CAUSE (REASON) What was answered stays, and what failed is asked again by the same "
        "command.",
    )


def test_key_that_is_refused_stops_the_run_in_two_lines(tmp_path, server, fault):
    import ray

    load(tmp_path, server.url, ["a picture with fault-401"] * 40)
    here = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "jobs", "run", str(tmp_path / "recipe.yaml")]
    told = subprocess.run(
        [*command, "--corpus", str(tmp_path / "corpus"), "--until", "synthesize"],
        env=os.environ | here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    steps = ["fit synthesis  …", "fit synthesis  done, 0.0 s", "ingest, ask, synthesize …"]
    shown = without_ray_greeting(re.sub(r"\d+\.\d s", "0.0 s", told.stderr))
    assert shown[: len(steps)] == steps
    assert [line.partition(": ")[0] for line in shown[len(steps) :]] == [
        "error synthesis.endpoint",
        f"Check that the environment's {VARIABLE} holds a key that may use served. What was "
        "answered stays; the same command goes on from there.",
    ]
    assert (told.returncode, told.stdout) == (FAILED, "")
    fault(
        "the LLM's server refuses the key",
        f"exit code {told.returncode}: synthesis.endpoint: URL answers: CAUSE Check that the "
        "environment's VARIABLE holds a key that may use MODEL.",
    )


def test_run_whose_first_answers_are_of_no_use_stops_early(tmp_path, server, fault):
    captions = [f"picture {number} with fault-not-json" for number in range(200)]
    root = tmp_path / "corpus"
    with pytest.raises(UserError, match="of the first 50 answers are of no use") as stop:
        run(load(tmp_path, server.url, captions), root, until="synthesize")
    assert "Sure! Here it is" in stop.value.message
    assert sum(server.tries.values()) < 150
    fault(
        "the first answers of an LLM are of no use",
        f"exit code {stop.value.exit_code}: synthesis: N of the first 50 answers are of no use, M "
        "of them for REASON. For example: ANSWER What was answered stays.",
    )


def test_budget_counts_the_prompts_that_a_server_bills(tmp_path, server):
    recipe = load(tmp_path, server.url, [f"picture number {number}" for number in range(60)])
    short = recipe.synthesis.model_copy(update={"budget": 1200})
    with pytest.raises(UserError, match="the token budget is spent") as stop:
        run(recipe.model_copy(update={"synthesis": short}), tmp_path / "corpus", until="synthesize")
    assert stop.value.exit_code == STOPPED
    assert 600 < 37 * len(server.answered) <= 1200  # 30 of the prompt, 7 of the answer
