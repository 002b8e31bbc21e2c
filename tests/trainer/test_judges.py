"""Exported pictures, read as each judge's own code reads them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from tests.trainer.conftest import square
from trainer.evaluate.judges import (
    JUDGES,
    PICTURES,
    claim,
    export_pictures,
    num_cut,
    read_prompts,
    what_decides,
)
from trainer.generate.sample import draw
from trainer.generate.settings import PickSettings, SampleSettings
from trainer.run import Run

SETTINGS = SampleSettings(image=PickSettings(temperature=2.0), cfg_scale=1)
"""Warm enough for the four drawings of a prompt to differ."""
TEXTS = [square(number)[0] for number in range(10)]


def export(run: Run, name: str, prompts: Path, out: Path) -> list[int]:
    found = read_prompts(JUDGES[name], prompts, "squares")
    claim(out, what_decides(run, name, prompts, SETTINGS))
    return list(export_pictures(run, JUDGES[name], found, out, SETTINGS))


def drawn(run: Run, side: int) -> list[np.ndarray]:
    """What the model draws for the first three texts, side x side of each."""
    texts = [text for text in TEXTS[:3] for _ in range(side**2)]
    return [np.asarray(picture) for picture in draw(run, texts, SETTINGS)]


def dpg_prompts(folder: Path, num: int = len(TEXTS)) -> Path:
    folder.mkdir()
    for number, text in enumerate(TEXTS[:num]):
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_geneval2_finds_the_path_of_each_prompt(trained: Run, tmp_path: Path) -> None:
    """As `main` of evaluation.py in facebookresearch/GenEval2 reads them."""
    data = tmp_path / "geneval2_data.jsonl"
    data.write_text("".join(f"{json.dumps({'prompt': text})}\n" for text in TEXTS[:3]))
    assert export(trained, "geneval2", data, tmp_path / "out") == [0, 3]
    image_data = json.load((tmp_path / "out" / "images.json").open())
    benchmark = [json.loads(line) for line in data.open().readlines()]
    for entry, picture in zip(benchmark, drawn(trained, 1), strict=True):
        path = image_data[entry["prompt"]]
        assert Path(path).is_absolute()
        assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_wise_finds_a_picture_by_the_number_of_its_prompt(trained: Run, tmp_path: Path) -> None:
    """As `load_prompts` and `main` of vllm_eval.py in PKU-YuanGroup/WISE read them."""
    data = tmp_path / "merge.json"
    ids = (401, 7, 1000)
    entries = [{"Prompt": text, "prompt_id": id_, "Explanation": "", "Subcategory": ""}
               for text, id_ in zip(TEXTS, ids, strict=False)]  # fmt: skip
    data.write_text(json.dumps(entries))
    export(trained, "wise", data, tmp_path / "out")
    prompts = {item["prompt_id"]: item for item in json.load(data.open())}
    for id_, picture in zip(prompts, drawn(trained, 1), strict=True):
        path = tmp_path / "out" / PICTURES / f"{id_}.png"
        assert np.array_equal(np.asarray(Image.open(path)), picture)


@pytest.mark.parametrize("column", ["prompt_en", "prompt_cn"])
def test_oneig_finds_four_drawings_in_the_grid_of_each_prompt(
    trained: Run, tmp_path: Path, column: str
) -> None:
    """As `main` of scripts/alignment/alignment_score.py and `split_mxn_grid` of
    scripts/utils/utils.py in OneIG-Bench/OneIG-Benchmark read them.
    """
    data = tmp_path / "OneIG-Bench.csv"
    places = [("Anime_Stylization", "anime"), ("Portrait", "human"), ("Multilingualism",) * 2]
    with data.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["category", "id", column, "class"])
        for number, (text, (category, _)) in enumerate(zip(TEXTS, places, strict=False)):
            writer.writerow([category, f"{number:03}", text, ""])
    export(trained, "oneig", data, tmp_path / "out")
    found = []
    for number, (_, folder) in enumerate(places):
        model = tmp_path / "out" / PICTURES / folder.lower() / "squares"
        (path,) = model.glob(f"{number:03}*")
        grid = Image.open(path)
        width, height = grid.width // 2, grid.height // 2
        for i in range(2):
            for j in range(2):
                box = (j * width, i * height, (j + 1) * width, (i + 1) * height)
                found.append(np.asarray(grid.crop(box)))
        assert grid.mode == "RGB"  # `is_black_image` compares triples
    assert np.array_equal(np.stack(found), np.stack(drawn(trained, 2)))
    assert len({picture.tobytes() for picture in found[:4]}) > 1


def test_dpg_finds_four_drawings_in_the_grid_of_each_prompt(trained: Run, tmp_path: Path) -> None:
    """As `main` and `compute_dpg_one_sample` of dpg_bench/compute_dpg_bench.py in
    TencentQQGYLab/ELLA read them, with the size of one drawing as `--resolution`.
    """
    prompts = dpg_prompts(tmp_path / "prompts", 3)
    export(trained, "dpg", prompts, tmp_path / "out")
    root, size = tmp_path / "out" / PICTURES, trained.images.image_size
    names = sorted(path.name for path in root.iterdir())
    assert [name.split(".")[0] for name in names] == ["0", "1", "2"]
    crops = [(0, 0), (size, 0), (0, size), (size, size)]
    found = [
        np.asarray(Image.open(root / name).crop((x, y, x + size, y + size)))
        for name in names
        for x, y in crops
    ]
    assert np.array_equal(np.stack(found), np.stack(drawn(trained, 2)))


def test_a_stopped_export_draws_the_rest_and_is_that_of_an_undisturbed_one(
    trained: Run, tmp_path: Path
) -> None:
    prompts = dpg_prompts(tmp_path / "prompts")
    assert export(trained, "dpg", prompts, tmp_path / "whole") == [0, 8, 10]
    stopped = tmp_path / "stopped" / PICTURES
    shutil.copytree(tmp_path / "whole", stopped.parent)
    for name in ("3", "4", "9"):
        (stopped / f"{name}.png").unlink()
    (stopped / ".9.png.01234567.tmp").write_bytes(b"half of it")
    kept = (stopped / "0.png").stat().st_mtime_ns
    assert export(trained, "dpg", prompts, stopped.parent) == [7, 9, 10]
    assert (stopped / "0.png").stat().st_mtime_ns == kept
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole" / PICTURES).iterdir()}
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == whole


def test_a_folder_holds_the_pictures_of_one_export(trained: Run, tmp_path: Path) -> None:
    prompts, out = dpg_prompts(tmp_path / "prompts", 1), tmp_path / "out"
    decided = what_decides(trained, "dpg", prompts, SETTINGS)
    claim(out, decided)
    claim(out, decided)
    other = what_decides(trained, "dpg", prompts, SETTINGS.model_copy(update={"seed": 1}))
    with pytest.raises(UserError, match=r"holds other pictures: sample\.seed was 0 and is 1"):
        claim(out, other)
    (prompts / "0.txt").write_text("another text")
    with pytest.raises(UserError, match=r"the prompts was .* and is"):
        claim(out, what_decides(trained, "dpg", prompts, SETTINGS))
    (tmp_path / "mine" / PICTURES).mkdir(parents=True)
    with pytest.raises(UserError, match="was written by something else"):
        claim(tmp_path / "mine", decided)


def test_prompts_that_the_model_gets_in_part_are_counted(trained: Run, tmp_path: Path) -> None:
    prompts = dpg_prompts(tmp_path / "prompts", 2)
    (prompts / "1.txt").write_text("a red square at the left " * 9)
    assert num_cut(trained, read_prompts(JUDGES["dpg"], prompts, "squares")) == 1


ONEIG = "category,id,prompt_en\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("geneval2", "", " has no prompts"),
        ("geneval2", '{"prompt": "a"}\n{"prompt": ', ":2: no JSON: Expecting value"),
        ("geneval2", '{"prompt": "a"}\n{"text": "b"}', ":2: field prompt: a text is expected, and"),
        ("geneval2", "[]", ":1: an object with prompt is expected, and it is []"),
        ("wise", "[\n{", ":2: no JSON: Expecting property name"),
        ("wise", '{"Prompt": "a"}', ": a JSON list is expected"),
        ("wise", '[{"Prompt": "a"}]', ": entry 1: field prompt_id: a number from 1 is expected"),
        ("wise", '[{"Prompt": 5, "prompt_id": 1}]', ": entry 1: field Prompt: a text is expected"),
        ("wise", '[{"Prompt": "a", "prompt_id": 1}, {"Prompt": "b", "prompt_id": 1}]',
         " has two prompts for 1.png"),
        ("oneig", "category,id,prompt\n", ":1: column prompt_en or prompt_cn is expected"),
        ("oneig", f"{ONEIG}Portrait,000,a\nPortraits,001,b", ":3: field category: one of Anime_"),
        ("oneig", f"{ONEIG}Portrait,../1,a", ":2: field id: three digits is expected"),
        ("oneig", f"{ONEIG}Portrait,000", ":2: field prompt_en: a text is expected, and it is m"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_the_judges_is_refused_by_its_place(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / "prompts"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_prompts(JUDGES[name], path, "squares")
    assert caught.value.message.startswith(f"{path}{said}")
    assert JUDGES[name].repository in str(caught.value.hint)


def test_a_place_without_prompts_is_refused(tmp_path: Path) -> None:
    dpg = JUDGES["dpg"]
    with pytest.raises(UserError, match="gone cannot be read: No such file"):
        read_prompts(dpg, tmp_path / "gone", "squares")
    with pytest.raises(UserError, match=" has no prompts"):
        read_prompts(dpg, tmp_path, "squares")
    (tmp_path / "0.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"/0\.txt: a text is expected, and it is empty"):
        read_prompts(dpg, tmp_path, "squares")
    (tmp_path / "0.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"/0\.txt is no text in UTF-8"):
        read_prompts(dpg, tmp_path, "squares")
    (tmp_path / "0.txt").unlink()
    (tmp_path / "a.b.txt").write_text("a square")
    with pytest.raises(UserError, match=r"/a\.b\.txt: its name has more dots"):
        read_prompts(dpg, tmp_path, "squares")
