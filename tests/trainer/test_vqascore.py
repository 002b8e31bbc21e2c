"""With a stand-in for t2v_metrics, whose models need weights that are not here."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.recipe import load_recipe
from jobs.training import train_model
from pipeline.errors import UserError
from tests.trainer.conftest import Squares, square
from trainer.evaluate.likelihood import pairs_of
from trainer.evaluate.settings import EvaluateSettings
from trainer.evaluate.vqascore import require_vqascore, vqascore
from trainer.generate.settings import PickSettings, SampleSettings
from trainer.run import Run

SETTINGS = EvaluateSettings(vqascore="of-squares", max_retrieved=16)
GREEDY = SampleSettings(image=PickSettings(temperature=0), cfg_scale=1)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, trained: Run) -> None:
    """Has the interface of t2v_metrics; knows the squares, and scores what a picture has of one."""
    texts, codes = zip(*(square(number) for number in range(16)), strict=True)
    true = dict(zip(texts, trained.images.decode_images(np.stack(codes)), strict=True))

    class VQAScore:
        def __init__(self, *, model: str, device: str) -> None:
            assert model == "of-squares"
            torch.device(device)

        def __call__(self, images: list[str], texts: list[str]) -> torch.Tensor:
            (path,), (text,) = images, texts
            shown, wanted = np.asarray(Image.open(path)), np.asarray(true[text])
            return torch.tensor([[float((shown == wanted).mean())]])

    module = ModuleType("t2v_metrics")
    module.VQAScore = VQAScore
    module.list_all_models = lambda: ["of-squares", "of-circles"]
    monkeypatch.setitem(sys.modules, "t2v_metrics", module)


@pytest.mark.usefixtures("package")
def test_drawn_captions_are_judged_with_a_ceiling_and_a_floor(
    trained: Run, squares: Squares
) -> None:
    found = vqascore(trained, pairs_of(squares.manifest, "validation", 16), SETTINGS, GREEDY)
    assert found is not None
    assert found.num_pictures == 16
    assert found.reconstructed == 1
    assert found.drawn > 0.8 > found.shuffled
    assert found.sentence().startswith("VQAScore by of-squares: ")


@pytest.mark.usefixtures("package")
def test_a_model_that_the_package_does_not_have_is_refused(trained: Run) -> None:
    other = EvaluateSettings(vqascore="of-triangles")
    with pytest.raises(UserError, match="has no model of-triangles\nIt has of-squares, of-circles"):
        require_vqascore(other)
    assert vqascore(trained, [], SETTINGS, GREEDY) is None


def test_without_the_package_what_to_install_is_said_before_anything_is_done(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "t2v_metrics", None)
    assert require_vqascore(EvaluateSettings()) is None
    (tmp_path / "recipe.yaml").write_text(
        "name: a\nsources:\n  - kind: shapes\nevaluate:\n  vqascore: qwen3-vl-2b\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="pip install t2v-metrics"):
        train_model(recipe, tmp_path / "corpus", tmp_path / "run", fresh=False, console=None)
    assert not (tmp_path / "run").exists()
