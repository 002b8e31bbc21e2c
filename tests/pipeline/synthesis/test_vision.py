import asyncio
import base64
import io
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.engine.corpus import Task
from pipeline.engine.fingerprint import hash_bytes
from pipeline.engine.ray_session import connect_to_ray
from pipeline.engine.runner import Link, RayRunner
from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import Work
from pipeline.engine.storage import commit_json
from pipeline.engine.tables import read_table, write_table
from pipeline.engine.worker import RunContext
from pipeline.errors import UserError
from pipeline.synthesis.backends import answer
from pipeline.synthesis.backends.openai import Asker
from pipeline.synthesis.prompts import load_prompts
from pipeline.synthesis.requests import ERROR_COLUMN, read_requests
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.vision import PICTURES, add_pictures, shrink, with_parts
from tests.pipeline.synthesis.backends.server import serving
from tests.pipeline.synthesis.slow_ingest import record
from tests.pipeline.synthesis.test_engine import LLM_PYTHON, ask_stage, chain_row
from tests.pipeline.synthesis.tiny_vlm import IMAGE_TOKENS, write_tiny_vlm

CAPTIONS_ALONE = SynthesisSettings(shares={"caption": 1})
SEEING = CAPTIONS_ALONE.model_copy(update={"vision": True, "vision_max_side": 32})


def picture(colour: str, size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def make_task(folder: Path, pictures: dict[str, bytes], part: str = "part") -> Task:
    """A part of one record a picture, all with the same caption."""
    rows = [
        record(name, "apple") | {"image_id": hash_bytes(content), "image": content}
        for name, content in pictures.items()
    ]
    records = folder / "tables" / "records" / "print" / f"{part}.parquet"
    write_table(records, rows, RECORDS)
    return Task(
        work=Work(part=part, inputs={"records": records}),
        output=folder / "tables" / "answers" / "print" / f"{part}.parquet",
        rejects=folder / "tables" / "rejects-ask" / "print" / f"{part}.parquet",
    )


def requests_of(task: Task, settings: SynthesisSettings) -> list[dict[str, object]]:
    prompts = load_prompts(settings)
    return read_requests(chain_row(task), settings=settings, prompts=prompts, cut=1.0)


def test_picture_is_shrunk_to_its_longer_side_and_never_enlarged() -> None:
    assert opened(shrink(picture("red", (640, 320)), 64)).size == (64, 32)
    assert opened(shrink(picture("red", (20, 40)), 64)).size == (20, 40)


@pytest.mark.parametrize(("form", "kept"), [("JPEG", "JPEG"), ("WEBP", "JPEG"), ("GIF", "PNG")])
def test_picture_goes_on_as_png_or_jpeg(form: str, kept: str) -> None:
    found = opened(shrink(picture("blue", form=form), 64))
    assert (found.format, found.mode) == (kept, "RGB")
    red, _, blue = found.getpixel((10, 10))
    assert blue > 200
    assert red < 60


def test_requests_carry_pictures_and_are_else_the_same(tmp_path: Path) -> None:
    task = make_task(tmp_path, {"a": picture("red"), "b": picture("blue")})
    blind, seeing = requests_of(task, CAPTIONS_ALONE), requests_of(task, SEEING)
    (of_a,), (of_b,) = (request.pop(PICTURES) for request in seeing)
    assert opened(of_a).getpixel((0, 0)) == (255, 0, 0)
    assert opened(of_b).getpixel((0, 0)) == (0, 0, 255)
    assert len({request["request"] for request in (*blind, *seeing)}) == 4  # a replay's key
    for request in (*blind, *seeing):
        del request["started"], request["request"]
    assert seeing == blind


def test_row_that_passes_the_engine_has_the_columns_of_a_request(tmp_path: Path) -> None:
    task = make_task(tmp_path, {"a": picture("red")})
    (request,) = requests_of(task, SEEING)
    prompts = load_prompts(SEEING)
    row = chain_row(task, stage="score")
    (passing,) = read_requests(row, settings=SEEING, prompts=prompts, cut=1.0)
    assert passing[PICTURES] == []
    assert set(passing) == set(request)
    assert pa.Table.from_pylist([request, passing]).num_rows == 2


def test_part_without_requests_shows_nothing(tmp_path: Path) -> None:
    assert add_pictures([], make_task(tmp_path, {}).work, max_side=32) == []


def test_request_about_two_records_has_both_pictures_and_that_of_a_judge_none(
    tmp_path: Path,
) -> None:
    task = make_task(tmp_path, {"a": picture("red"), "b": picture("blue")})
    both = {"record_id": "b", "next_id": "a", "role": "write"}
    judge = {"record_id": "b", "next_id": "", "role": "judge"}
    found, judged = add_pictures([both, judge], task.work, max_side=32)
    assert [opened(each).getpixel((0, 0))[0] for each in found[PICTURES]] == [0, 255]
    assert judged == judge | {PICTURES: []}


def test_referenced_picture_is_read_from_its_source(tmp_path: Path) -> None:
    content = picture("green")
    (tmp_path / "green.png").write_bytes(content)
    row = record("a", "apple") | {
        "image_id": hash_bytes(content),
        "image": None,
        "image_ref": str(tmp_path / "green.png"),
    }
    write_table(tmp_path / "records", [row], RECORDS)
    work = Work(part="part", inputs={"records": tmp_path / "records"})
    (request,) = add_pictures([{"record_id": "a", "next_id": "", "role": "write"}], work, 32)
    assert opened(request[PICTURES][0]).size == (32, 24)
    (tmp_path / "green.png").write_bytes(picture("red"))
    with pytest.raises(UserError, match=r"green\.png"):
        add_pictures([{"record_id": "a", "next_id": "", "role": "write"}], work, 32)


def test_parts_stand_before_the_last_text() -> None:
    messages = [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]
    chat = with_parts(messages, [{"type": "image"}])
    assert chat == [
        {"role": "system", "content": [{"type": "text", "text": "one"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "two"}]},
    ]


def test_endpoint_gets_pictures_as_data_uris_before_the_text(tmp_path: Path) -> None:
    task = make_task(tmp_path, {"a": picture("red"), "b": picture("blue", form="JPEG")})
    requests = requests_of(task, SEEING)
    with serving() as server:
        endpoint = {"base_url": server.url, "api_key_env": None}
        settings = SynthesisSettings(
            backend="openai", model="served", endpoint=endpoint, vision=True
        )
        asker = Asker(settings, None, ("record_id",))
        found = asyncio.run(asker(pa.Table.from_pylist(requests))).to_pylist()
    assert [row[ERROR_COLUMN] for row in found] == ["", ""]
    parts = sorted((body["messages"][-1]["content"] for body in server.bodies), key=str)
    for (shown, text), content, form in zip(
        parts, (requests[1][PICTURES][0], requests[0][PICTURES][0]), ("jpeg", "png"), strict=True
    ):
        data = base64.b64encode(content).decode()
        url = {"url": f"data:image/{form};base64,{data}"}
        assert shown == {"type": "image_url", "image_url": url}
        assert text == {"type": "text", "text": requests[0]["messages"][-1]["content"]}


def test_model_without_eyes_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    settings = SynthesisSettings(vision=True, model=str(tmp_path))
    with pytest.raises(UserError, match=r"synthesis\.vision: the model .* takes no pictures"):
        answer(settings, None, carried=())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.mark.slow
def test_engine_answers_by_what_it_sees(tmp_path: Path, vlm: Path) -> None:
    """The same caption without chance: only the picture can make another answer."""
    import ray

    pictures = {"a": picture("red"), "b": picture("blue"), "c": picture("red")}
    base = CAPTIONS_ALONE.model_copy(
        update={
            "model": str(vlm), "python": LLM_PYTHON if LLM_PYTHON.exists() else None,
            "temperature": 0.0, "attempts": 1, "max_tokens": 40, "max_num_seqs": 8,
            "cpu_kv_cache_gib": 1,
        }
    )  # fmt: skip
    found = {}
    connect_to_ray()
    try:
        for name, vision in (("blind", False), ("seeing", True)):
            settings = base.model_copy(update={"vision": vision})
            task = make_task(tmp_path / name, pictures)
            cut = tmp_path / name / "cut"
            cut.mkdir()
            commit_json(cut / "cut.json", {"cut": 1.0})
            passing = make_task(tmp_path / name, {}, part="empty")
            tasks = {each.work.part: each for each in (task, passing)}
            link = Link(spec=ask_stage(settings), tasks=tasks)
            context = RunContext(run="test", attempts=tmp_path / name / "attempts")
            list(RayRunner(num_workers=2, context=context).run_chain([link], {"synthesis": cut}))
            assert read_table(passing.output).num_rows == 0
            rows = read_table(task.output).to_pylist()
            assert [row["error"] for row in rows] == [None] * 3
            found[name] = {row["record_id"]: row for row in rows}
    finally:
        ray.shutdown()
    blind, seeing = found["blind"], found["seeing"]
    assert len({row["text"] for row in blind.values()}) == 1
    assert seeing["a"]["text"] == seeing["c"]["text"] != seeing["b"]["text"]
    for name in pictures:
        more = seeing[name]["num_prompt_tokens"] - blind[name]["num_prompt_tokens"]
        assert more == IMAGE_TOKENS
    assert seeing["a"]["text"].startswith('{"tags":"')
