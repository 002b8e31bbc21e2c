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
def process():
    """The settings before, with numbers that nothing else would choose."""
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(3)
    faiss.omp_set_num_threads(3)
    yield settings_of_the_process()
    torch.set_num_threads(threads[0])
    faiss.omp_set_num_threads(threads[1])


def test_an_audit_leaves_the_process_as_it_was(made, process):
    assert cli.call(["audit", str(made)]) == 0
    assert settings_of_the_process() == process


def test_fits_stages_and_training_leave_the_process_as_it_was(
    corpus, load, tiny_recipe, process, tmp_path
):
    changes = ("image_tokenizer.seed=1", "score.clip.seed=1", "duplicates.perceptual=0.1")
    run(load(*changes), corpus)
    assert settings_of_the_process() == process
    assert (
        cli.call(
            ["train", str(tiny_recipe), "--corpus", str(corpus), "--out", str(tmp_path / "run")]
        )
        == 0
    )
    assert settings_of_the_process() == process
