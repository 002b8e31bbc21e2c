import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.synthesis.backends import answer, explain
from pipeline.synthesis.settings import SynthesisSettings

HANGING = """
import asyncio, multiprocessing, sys, time
from pipeline.synthesis.backends.vllm import with_time_limit

class Engine:
    async def udf(self, batch):
        yield "an answer"
        await asyncio.Event().wait()

async def run():
    async for reply in with_time_limit(Engine, 0.2)().udf([]):
        print(reply, flush=True)

if __name__ == "__main__":
    child = multiprocessing.Process(target=time.sleep, args=(1000,))
    child.start()
    asyncio.run(run())
"""


def test_missing_interpreter_stops_before_any_work(tmp_path: Path) -> None:
    untouched: Any = None
    with pytest.raises(UserError, match=r"synthesis\.python"):
        answer(SynthesisSettings(python=tmp_path / "python"), untouched, carried=())


def test_engine_that_hangs_ends_with_all_its_processes(tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    # Its child holds the same pipe: this process would still read, were that alive.
    assert (done.returncode, done.stdout) == (1, "an answer\n"), done.stderr


# What Ray 2.60 with vLLM 0.32 says, shortened; brought about with the real engine.
DIED = """The actor died unexpectedly before finishing this task.
	class_name: MapWorker(MapBatches(LimitedEngine))
	pid: 27521
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"""
NO_START = """The actor died because of an error raised in its creation task, ray::MapWorker(\
MapBatches(LimitedEngine)).__init__() (pid=1)
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"""
NO_VLLM = """ray::MapWorker(MapBatches(LimitedEngine)).__init__() (pid=1)
ImportError: vLLM is not installed or failed to import. Please run `pip install ray[llm]`"""


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (DIED, ["has died 3 times", "9 s (synthesis.timeout_s)", "What was answered stays"]),
        (NO_START, ["does not start: RuntimeError: Engine core", "synthesis.cpu_kv_cache_gib"]),
        (NO_VLLM, ["synthesis.python", "there is no vLLM in the environment that runs anymix"]),
    ],
)
def test_death_of_an_engine_is_told_with_its_remedy(said: str, parts: list[str]) -> None:
    told = explain(SynthesisSettings(timeout_s=9), RuntimeError(said))
    assert all(part in str(told) for part in parts), told


def test_memory_of_a_gpu_is_another_setting() -> None:
    told = explain(SynthesisSettings(device="gpu"), RuntimeError(NO_START))
    assert "synthesis.engine.gpu_memory_utilization" in str(told)


@pytest.mark.parametrize("said", ["The actor died. class_name: MapWorker(Map(Other))", "anything"])
def test_death_of_anything_else_is_left_to_others(said: str) -> None:
    assert explain(SynthesisSettings(), RuntimeError(said)) is None
