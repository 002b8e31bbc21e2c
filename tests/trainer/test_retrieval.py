"""Pictures of the squares are found by a CLIP that sees nothing but pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from tests.trainer.conftest import Squares
from trainer.evaluate.likelihood import pairs_of
from trainer.evaluate.retrieval import Gallery, HeldOut, frechet_distance, retrieve
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.settings import SampleSettings
from trainer.run import Run

GREEDY = SampleSettings(temperature=0, cfg_scale=1)
SETTINGS = EvaluateSettings()


class Pixels:
    """Features are a picture's pixels; two folds, by the first letter of the image's id."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture.convert("RGB"), np.float32) - 127.5)

    def fold(self, image_id: str) -> int:
        return int(image_id[0])

    def embed_images(self, image_ids: list[str], pictures: list[torch.Tensor]) -> np.ndarray:
        self.asked += image_ids
        features = torch.stack(pictures).flatten(1)
        return (features / features.norm(dim=1, keepdim=True)).numpy()

    def embed_texts(self, image_ids: list[str], texts: list[str]) -> list[np.ndarray]:
        assert len(image_ids) == len(texts)
        return [np.full((1, 16 * 16 * 3), (16 * 16 * 3) ** -0.5, np.float32) for _ in texts]


def gallery(run: Run, squares: Squares, *, with_styles: bool = False) -> Gallery:
    pairs = {pair.text: pair for pair in pairs_of(squares.manifest, "validation", 96)}
    pictures = run.images.decode_images(np.stack([pair.codes for pair in pairs.values()]))
    held = [
        HeldOut(
            image_id=f"{number % 2}{number}",
            image=picture,
            caption=text,
            style=text.split()[1] if with_styles else None,
        )
        for number, (text, picture) in enumerate(zip(pairs, pictures, strict=True))
    ]
    return Gallery(pictures=held, clip=Pixels())


def test_drawn_pictures_find_the_true_ones_of_their_fold(trained: Run, squares: Squares) -> None:
    found = retrieve(trained, gallery(trained, squares, with_styles=True), SETTINGS, GREEDY)
    assert found is not None
    assert (found.num_pictures, found.num_candidates) == (16, 8)
    assert found.drawn.recall_at_1.value > 0.7 > found.shuffled.recall_at_1.value
    assert found.drawn.recall_at_10.value == 1  # there are but eight
    assert found.drawn.right_style is not None
    assert found.drawn.right_style.value >= found.drawn.recall_at_1.value
    assert found.drawn.frechet is not None
    assert found.shuffled.frechet is not None
    assert found.drawn.frechet < found.shuffled.frechet + 0.2
    assert "find the true picture among 8 as the nearest one" in found.sentence()
    assert "of the right style" in found.sentence()


def test_only_the_model_of_the_true_pictures_fold_embeds(trained: Run, squares: Squares) -> None:
    shown = gallery(trained, squares)
    found = retrieve(trained, shown, SETTINGS, GREEDY)
    assert found is not None
    assert found.drawn.right_style is None
    ids = [each.image_id for each in shown.pictures]
    assert isinstance(shown.clip, Pixels)
    assert shown.clip.asked == ids * 4  # the true ones, drawn, reconstructed, shuffled


def test_pictures_that_are_all_the_same_find_nothing(trained: Run, squares: Squares) -> None:
    shown = gallery(trained, squares)
    one = shown.pictures[0].image
    same = [HeldOut(image_id=e.image_id, image=one, caption=e.caption) for e in shown.pictures]
    found = retrieve(trained, Gallery(pictures=same, clip=shown.clip), SETTINGS, GREEDY)
    assert found is not None
    assert found.drawn.recall_at_1.num_right == 0


def test_too_few_pictures_give_no_figures(trained: Run, squares: Squares) -> None:
    shown = gallery(trained, squares)
    few = EvaluateSettings(max_retrieved=1)
    assert retrieve(trained, shown, few, GREEDY) is None


@pytest.mark.parametrize("sizes", [(40, 50), (3, 4)])
def test_the_frechet_distance_is_that_of_the_formula(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.normal(shift, 1, (size, 6)) for shift, size in enumerate(sizes))
    c1, c2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    means = one.mean(axis=0) - other.mean(axis=0)
    expected = means @ means + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
