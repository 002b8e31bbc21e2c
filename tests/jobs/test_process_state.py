"""Commands in one process, as the demonstration runs them, leave it as they found it."""

import random

import faiss
import numpy as np
import pytest
import torch

from jobs import cli
from tests.jobs.corpora import run


def settings_of_the_process():
    return {
        "threads": torch.get_num_threads(),
        "threads between operators": torch.get_num_interop_threads(),
        "threads of faiss": faiss.omp_get_max_threads(),
        "random numbers": torch.get_rng_state().tolist(),
        "random numbers of NumPy": str(np.random.get_state()),  # noqa: NPY002 - the global one
        "random numbers of Python": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


@pytest.fixture
def _threads():
    """Numbers of threads that nothing else would choose."""
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(3)
    faiss.omp_set_num_threads(3)
    yield
    torch.set_num_threads(threads[0])
    faiss.omp_set_num_threads(threads[1])


@pytest.mark.usefixtures("_threads")
def test_an_audit_leaves_the_process_as_it_was(made):
    before = settings_of_the_process()  # here: random numbers are seeded again after the fixtures
    assert cli.call(["audit", str(made)]) == 0
    assert settings_of_the_process() == before


@pytest.mark.usefixtures("_threads")
def test_fits_stages_and_training_leave_the_process_as_it_was(corpus, load, tiny_recipe, tmp_path):
    before = settings_of_the_process()
    changes = ("image_tokenizer.seed=1", "score.clip.seed=1", "duplicates.perceptual=0.1")
    run(load(*changes), corpus)
    assert settings_of_the_process() == before
    assert (
        cli.call(
            ["train", str(tiny_recipe), "--corpus", str(corpus), "--out", str(tmp_path / "run")]
        )
        == 0
    )
    assert settings_of_the_process() == before
