"""The loop of writing and judging on OpenMoji, and what it costs to kill it.

    python -m tests.benchmarks.loop [--json] [--records 500] [--kills 10]

The real vLLM serves the embedded model over HTTP, and stays when a run is killed: what it counts as
written, less the tokens of the answers that are kept, was written twice. A run is killed with all
its processes when a share of the answers is there; then the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import duckdb
import httpx
import psutil
import yaml

from pipeline.synthesis.backends.vllm import engine_kwargs, runtime_env
from pipeline.synthesis.diversity import Text, compare
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import resolve_model
from tests.benchmarks.result import Result, show

CHECKOUT = Path(__file__).parents[2]
LLM_PYTHON = CHECKOUT / ".venv-llm" / "bin" / "python"
MODEL = "smollm2-135m-instruct"
CONCURRENCY = 32
START_S = 600.0
TOKENS_PER_RECORD = 120
"""About what is written of a record, first attempts and rewrites: where the kills fall."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a vLLM server with the engine that the packaged recipe has."""
    settings = SynthesisSettings(python=LLM_PYTHON)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        flags = {name.replace("_", "-"): value for name, value in engine_kwargs(settings).items()}
        config = flags | {"port": port, "host": "127.0.0.1", "served-model-name": [MODEL]}
        config["disable-log-stats"] = False  # the counters are what is read here
        path = Path(folder) / "server.yaml"
        path.write_text(yaml.safe_dump(config))
        server = subprocess.Popen(
            [LLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server",
             "--model", resolve_model(MODEL), "--config", path],
            env=os.environ | runtime_env(settings)["env_vars"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(server, f"{address}/health")
            yield address
        finally:
            server.terminate()
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    ends = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < ends:
        with suppress(httpx.TransportError):
            if httpx.get(address).is_success:
                return
        time.sleep(0.5)
    message = "the vLLM server did not start"
    raise RuntimeError(message)


def written(address: str) -> int:
    """Tokens that the server has written since its start."""
    text = httpx.get(f"{address}/metrics").text
    found = re.findall(r"^vllm:generation_tokens_total\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


def measure(num_records: int, num_kills: int) -> Iterator[Result]:
    """The loop's figures, of a run that was killed again and again."""
    with serving() as address, tempfile.TemporaryDirectory(prefix="anymix-loop-") as folder:
        command = _command(Path(folder), address, num_records)
        corpus = Path(folder) / "corpus"
        subprocess.run([*command, "--until", "synthesis"], check=True, capture_output=True)
        before = written(address)
        lives = [TOKENS_PER_RECORD * num_records / (num_kills + 1)] * num_kills
        killed = sum(_kill_after(command, address, tokens) for tokens in lives)
        subprocess.run([*command, "--until", "synthesize"], check=True, capture_output=True)
        yield from _figures(corpus, killed, written(address) - before)


def _command(folder: Path, address: str, num_records: int) -> list[str]:
    recipe = yaml.safe_load((CHECKOUT / "jobs/recipes/demo.yaml").read_text())
    recipe["synthesis"] = {
        "limit": num_records,
        "backend": "openai",
        "model": MODEL,
        "endpoint": {"base_url": f"{address}/v1", "concurrency": CONCURRENCY},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return [sys.executable, "-m", "jobs.cli", "run", str(path), "--corpus", str(folder / "corpus")]


def _kill_after(command: list[str], address: str, tokens: float) -> bool:
    """Start a run and kill it when so many tokens are written; False where it ends before."""
    before = written(address)
    run = subprocess.Popen(
        [*command, "--until", "synthesize"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while run.poll() is None:
        if written(address) - before >= tokens:
            driver = psutil.Process(run.pid)
            for process in [driver, *driver.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.wait()
            return True
        time.sleep(0.2)
    return False


def _figures(corpus: Path, kills: int, spent: int) -> Iterator[Result]:
    """What the tables say after the last run."""
    tables = duckdb.connect()
    for table in ("records", "answers", "variants", "rejects-synthesize"):
        tables.sql(
            f"CREATE VIEW \"{table}\" AS FROM read_parquet('{corpus}/tables/{table}/*/*.parquet')"
        )
    ((kept, doubled),) = tables.sql(
        "SELECT sum(num_output_tokens)::BIGINT,"
        " count(*) - count(DISTINCT (record_id, role, kind, attempt)) FROM answers"
    ).fetchall()
    ((records, texts, twice),) = tables.sql(
        "SELECT count(DISTINCT record_id), count(*), count(*) - count(DISTINCT (record_id, form))"
        " FROM variants"
    ).fetchall()
    ((lost,),) = tables.sql(
        """
        SELECT count(*) FROM (SELECT record_id, unnest(forms) AS form, attempt FROM answers)
        WHERE (record_id, form, attempt) NOT IN (
            SELECT (record_id, form, attempt) FROM variants
            UNION ALL SELECT (record_id, form, attempt) FROM "rejects-synthesize"
        )
        """
    ).fetchall()
    yield Result(name="kills of a run", value=kills, unit="kills", goal=">= 1")
    yield Result(name="texts that are neither taken nor rejected", value=lost, unit="texts",
                 goal="== 0")  # fmt: skip
    yield Result(name="answers or texts that are there twice", value=doubled + twice, unit="rows",
                 goal="== 0")  # fmt: skip
    share = 100 * (spent - kept) / kept / max(1, kills)
    yield Result(
        name="tokens written twice, per kill", value=round(share, 2), unit="%", goal="<= 2",
        rival=f"the server wrote {spent}, the corpus keeps {kept}",
    )  # fmt: skip
    yield Result(
        name="texts that were taken, per record that has some",
        value=round(texts / records, 2), unit="texts", rival=f"{records} records",
    )  # fmt: skip
    rates = tables.sql(
        "SELECT attempt, sum(taken), count(*) FROM"
        " (SELECT attempt, 1 AS taken FROM variants"
        ' UNION ALL SELECT attempt, 0 FROM "rejects-synthesize") GROUP BY ALL ORDER BY ALL'
    ).fetchall()
    for attempt, taken, asked in rates:
        yield Result(name=f"taken at attempt {attempt}", value=round(100 * taken / asked, 1),
                     unit="%", rival=f"{taken} of {asked} texts")  # fmt: skip
    rows = tables.sql(
        "SELECT kind, record_id, text FROM variants UNION ALL SELECT 'original', record_id, caption"
        " FROM records WHERE record_id IN (SELECT record_id FROM variants)"
    ).fetchall()
    groups: dict[str, list[Text]] = {}
    for kind, record_id, text in rows:
        groups.setdefault(kind, []).append(Text(record_id=record_id, text=text))
    compared = compare(groups, embed=None)
    for kind, found in compared.groups.items():
        if found.distinct_2 is None:
            continue  # too few words
        yield Result(
            name=f"distinct-2 of {kind}", value=round(found.distinct_2, 3), unit="",
            rival=f"on {compared.segment} pairs of words",
        )  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    arguments = parser.parse_args()
    with redirect_stdout(sys.stderr):
        results = list(measure(arguments.records, arguments.kills))
    return show(results, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
