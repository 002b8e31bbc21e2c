"""The optional terms of the image tokenizer's loss: deep features and a discriminator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import AdamW
from torchvision.models import vgg16

from pipeline.engine.fingerprint import hash_folder
from pipeline.engine.stage import FitInputs
from pipeline.errors import UserError
from tests.tokenizer_cache.corpus import TINY_VQ, Selected, fit_inputs, write_part
from tokenizer_cache.settings import AdversarialSettings, PerceptualSettings, VQSettings
from tokenizer_cache.vq.adversarial import Discriminator, adaptive_weight, discriminator_loss
from tokenizer_cache.vq.perceptual import PerceptualDistance
from tokenizer_cache.vq.train import fit

ADVERSARIAL = AdversarialSettings(width=8, layers=2, start_share=0.5)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 with random weights; its classifier, which is most of its file, is left out."""
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = vgg16().features.state_dict()
    tensors = {}
    for name, value in shapes.items():
        scale = (2 / value[0].numel()) ** 0.5 if value.ndim == 4 else 0.1
        tensors[f"features.{name}"] = torch.randn(value.shape, generator=random) * scale
    tensors["classifier.6.bias"] = torch.zeros(1000)
    path = tmp_path_factory.mktemp("network") / "vgg16.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> FitInputs:
    pictures = [
        Selected(record_id=f"r{n}", stream="image", split="validation" if n % 10 == 0 else "train")
        for n in range(30)
    ]
    return fit_inputs(write_part(tmp_path_factory.mktemp("corpus"), "part", pictures))


def settings_of(changes: Mapping[str, Any]) -> VQSettings:
    return VQSettings.model_validate({**TINY_VQ.model_dump(), **changes})


def trained(settings: VQSettings, inputs: FitInputs, folder: Path) -> list[Mapping[str, float]]:
    """The figures of each step; the model lies in `folder`."""
    folder.mkdir()
    return [progress.figures for progress in fit(settings, inputs, folder)]


def random_images(seed: int, number: int = 2) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(number, 3, 32, 32, generator=random) * 2 - 1


def test_the_distance_is_that_of_lpips_without_its_fitted_weights(network: Path) -> None:
    """`lpips.LPIPS(net="vgg", lpips=False)` of lpips 0.1.4 with these weights and images."""
    random = torch.Generator().manual_seed(0)
    for tensor in vgg16_shapes(network):
        torch.randn(tensor, generator=random)
    images, others = torch.rand(2, 2, 3, 32, 32, generator=random) * 2 - 1
    distance = PerceptualDistance(network)(images, others)
    torch.testing.assert_close(distance, torch.tensor(1.4387452602386475), rtol=1e-5, atol=0)


def vgg16_shapes(network: Path) -> list[torch.Size]:
    """In the order in which the fixture drew them."""
    tensors = load_file(network)
    with torch.device("meta"):
        return [tensors[f"features.{name}"].shape for name in vgg16().features.state_dict()]


def test_an_image_is_at_no_distance_of_itself_and_only_the_images_get_gradients(
    network: Path,
) -> None:
    distance = PerceptualDistance(network)
    images, others = random_images(0).requires_grad_(), random_images(1)
    assert distance(images, images.detach()).item() == 0
    distance(images, others).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_a_pth_file_gives_the_same_network(network: Path, tmp_path: Path) -> None:
    torch.save(load_file(network), tmp_path / "vgg16.pth")
    images, others = random_images(0), random_images(1)
    first, again = (PerceptualDistance(each) for each in (network, tmp_path / "vgg16.pth"))
    assert torch.equal(first(images, others), again(images, others))


@pytest.mark.parametrize("name", ["gone.pth", "code.pth", "other.safetensors"])
def test_a_file_that_holds_no_vgg16_is_an_error_for_people(tmp_path: Path, name: str) -> None:
    torch.save({"features.0.weight": Path}, tmp_path / "code.pth")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"{name} holds no VGG16"):
        PerceptualDistance(tmp_path / name)


def test_the_perceptual_term_trains_towards_nearer_features(
    network: Path, inputs: FitInputs, tmp_path: Path
) -> None:
    plain = trained(TINY_VQ, inputs, tmp_path / "plain")
    perceptual = {"perceptual": PerceptualSettings(network=network, weight=1.0)}
    figures = trained(settings_of(perceptual), inputs, tmp_path / "perceptual")
    added = [a["loss"] - b["loss"] for a, b in zip(figures, plain, strict=True)]
    assert added[0] > 0
    assert added[-1] < 0.9 * added[0]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("plain", "perceptual")]
    assert set(weights[0]) == set(weights[1])
    assert not torch.equal(*(each["encoder.1.weight"] for each in weights))


def test_the_discriminator_is_the_patchgan_of_pix2pix() -> None:
    """70-pixel patches, 30x30 of them in 256 pixels; parameters as in taming-transformers'."""
    judge = Discriminator(AdversarialSettings())
    assert judge(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert sum(parameter.numel() for parameter in judge.parameters()) == 2_765_633


def test_a_discriminator_learns_to_tell_images_from_others() -> None:
    torch.manual_seed(0)
    judge = Discriminator(ADVERSARIAL)
    optimizer = AdamW(judge.parameters(), lr=1e-2)
    losses = []
    for step in range(20):
        loss = discriminator_loss(judge(random_images(step)), judge(random_images(step) / 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1, abs=0.1)  # It cannot tell them yet.
    assert losses[-1] < 0.3


def test_the_hinge_loss_stops_where_the_judgement_is_sure() -> None:
    sure = torch.full((2, 1, 3, 3), 1.5)
    assert discriminator_loss(sure, -sure).item() == 0
    assert discriminator_loss(-sure, sure).item() == pytest.approx(2.5)
    assert discriminator_loss(0 * sure, 0 * sure).item() == 1


def test_the_adaptive_weight_makes_both_gradients_equally_long() -> None:
    last = torch.randn(5, requires_grad=True)
    reconstruction, adversarial = (3 * last).square().sum(), (0.01 * last).sin().sum()
    weight = adaptive_weight(reconstruction, adversarial, last)
    assert not weight.requires_grad
    wanted, found = (
        torch.autograd.grad(loss, last)[0].norm() for loss in (reconstruction, weight * adversarial)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)
    flat = (0 * last).sum()  # A discriminator that says the same of everything.
    assert adaptive_weight(last.square().sum(), flat, last).item() == 1e4


def test_the_discriminator_joins_after_its_share_of_the_steps(
    inputs: FitInputs, tmp_path: Path
) -> None:
    figures = trained(settings_of({"adversarial": ADVERSARIAL}), inputs, tmp_path / "model")
    joined = [step for step, each in enumerate(figures, start=1) if "discriminator_loss" in each]
    assert joined == list(range(7, TINY_VQ.steps + 1))
    assert figures[6]["discriminator_loss"] == pytest.approx(1, abs=0.1)
    # What is kept is the tokenizer alone.
    names = load_file(tmp_path / "model" / "model.safetensors")
    assert {name.partition(".")[0] for name in names} == {"encoder", "decoder", "quantizer"}


def test_the_adversarial_term_moves_the_tokenizer(inputs: FitInputs, tmp_path: Path) -> None:
    """The same draws, with the term as good as off and with it on."""
    for name, weight in (("off", 1e-12), ("on", 0.8)):
        adversarial = ADVERSARIAL.model_copy(update={"weight": weight})
        trained(settings_of({"adversarial": adversarial}), inputs, tmp_path / name)
    off, on = (load_file(tmp_path / name / "model.safetensors") for name in ("off", "on"))
    last = max(name for name in on if name.startswith("decoder") and name.endswith("weight"))
    assert (on[last] - off[last]).abs().max() > 1e-4


@pytest.mark.e2e
def test_a_training_with_both_terms_that_is_killed_goes_on_to_the_same_files(
    network: Path, inputs: FitInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once before and once after the discriminator joins."""
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path / "cache"))
    perceptual = PerceptualSettings(network=network, weight=0.1)
    settings = settings_of({"perceptual": perceptual, "adversarial": ADVERSARIAL})
    whole = trained(settings, inputs, tmp_path / "whole")
    again = tmp_path / "again"
    again.mkdir()
    for step in (4, 9):
        killed = fit(settings, inputs, again)
        while next(killed).done < step:
            pass
        killed.close()
        torch.manual_seed(99)  # what another process would have in its generator
    assert [progress.figures for progress in fit(settings, inputs, again)] == whole[9:]
    assert hash_folder(again) == hash_folder(tmp_path / "whole")


def test_without_the_terms_a_fingerprint_is_what_it_was_before_them() -> None:
    assert not {"perceptual", "adversarial"} & set(VQSettings().model_dump(mode="json"))
    settings = VQSettings(adversarial=AdversarialSettings())
    assert VQSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_a_recipe_that_names_no_file_and_a_discriminator_that_is_too_deep_are_refused(
    tmp_path: Path,
) -> None:
    named = {"perceptual": {"network": "gone.pth"}}
    with pytest.raises(ValueError, match="there is no such file"):
        VQSettings.model_validate(named, context={"recipe_folder": tmp_path})
    assert VQSettings.model_validate(named).perceptual  # in a corpus, long after
    with pytest.raises(ValueError, match=r"leave nothing of an image of 16 pixels"):
        VQSettings(image_size=16, stride=4, adversarial=AdversarialSettings(layers=3))
