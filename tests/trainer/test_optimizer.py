import numpy as np
import pytest
import torch

from trainer.model.decoder import Decoder
from trainer.settings import ModelSettings, TrainSettings
from trainer.train.optimizer import Optimizers, decay_step, learning_rate_scale, orthogonalise

CELLS = np.indices((2, 2)).reshape(2, -1).T

SETTINGS = TrainSettings(steps=100, warmup=0.1, warmdown=0.5)


def test_learning_rate_rises_stays_and_falls_to_almost_nothing() -> None:
    scales = [learning_rate_scale(step, SETTINGS) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9:50] == [1.0] * 41
    assert scales[-1] == pytest.approx(1 / 50)
    assert all(0 < scale <= 1 for scale in scales)


def test_a_cosine_falls_from_the_end_of_the_rise_to_the_least_rate() -> None:
    settings = SETTINGS.model_copy(update={"schedule": "cosine", "min_learning_rate": 0.1})
    scales = [learning_rate_scale(step, settings) for step in range(100)]
    assert scales[9] == pytest.approx(1)
    assert scales[9:] == sorted(scales[9:], reverse=True)
    assert scales[55] == pytest.approx((1 + 0.1) / 2)
    assert scales[-1] == pytest.approx(0.1, abs=1e-3)
    assert decay_step(settings) == 10


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 32, 96), (3, 96, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_optimisers_that_are_saved_and_loaded_take_the_same_steps() -> None:
    def fresh() -> tuple[Decoder, Optimizers]:
        torch.manual_seed(0)
        model = Decoder(
            ModelSettings(layers=1, width=16, heads=2),
            vocab_size=20,
            cells=CELLS,
        )
        return model, Optimizers(model, SETTINGS)

    def step(model: Decoder, optimizers: Optimizers, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizers.step(0.5)

    model, optimizers = fresh()
    step(model, optimizers, 1)
    other_model, other_optimizers = fresh()
    other_model.load_state_dict(model.state_dict())
    other_optimizers.load_state_dict(optimizers.state_dict())
    for each in ((model, optimizers), (other_model, other_optimizers)):
        step(*each, 2)
    for one, other in zip(model.parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, other)
