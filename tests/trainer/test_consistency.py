"""Each of the three checks holds on a sound run, and names itself when its part is broken."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import FAILED
from tests.trainer.conftest import Squares, train_run
from tests.trainer.test_train import SETTINGS
from tokenizer_cache.code_order import nested_scales
from trainer.data import rows
from trainer.data.sequence import Written
from trainer.evaluate.consistency import (
    Example,
    InconsistentError,
    check_cache,
    check_consistency,
    check_pictures,
    encode_again,
)
from trainer.evaluate.likelihood import pairs_of
from trainer.model.cache import LayerCache
from trainer.run import Run
from trainer.train.checkpoint import newest_checkpoint


def examples_of(squares: Squares, *, picture: Image.Image | None = None) -> list[Example]:
    pairs = pairs_of(squares.manifest, "validation", 16)
    return [
        Example(key=each.key, text=each.text, codes=each.codes, picture=picture) for each in pairs
    ]


def documents_of(run: Run, examples: list[Example]) -> list[Written]:
    return [
        run.writer.write([run.caption(each.text), run.picture(each.codes)]) for each in examples
    ]


def test_a_sound_run_is_consistent(trained: Run, squares: Squares) -> None:
    assert check_consistency(trained, squares.manifest) == 4
    assert check_consistency(trained, squares.manifest, num_pictures=9) == 9
    assert check_consistency(replace(trained, vq=None), squares.manifest) == 0


def test_rows_whose_documents_see_each_other_are_found(
    trained: Run, squares: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = rows.add_document
    monkeypatch.setattr(rows, "add_document", lambda row, _, *place: add(row, 1, *place))
    with pytest.raises(InconsistentError, match=r"failed \(loss\).* in the shards' packed rows"):
        check_consistency(trained, squares.manifest)


def test_pictures_that_give_other_codes_are_found(trained: Run, squares: Squares) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    (first, *_) = examples_of(squares)
    own = trained.images.encode_images([Image.fromarray(noise)])[0]
    sound = replace(first, codes=own, picture=Image.fromarray(noise))
    assert np.array_equal(encode_again(trained.images, [sound])[0].codes, own)
    with pytest.raises(InconsistentError, match=r"failed \(loss\).* of the codes again"):
        encode_again(trained.images, [replace(sound, codes=(own + 1) % 8)])


def test_another_order_of_the_codes_is_found_when_they_are_decoded(
    trained: Run, squares: Squares
) -> None:
    examples = examples_of(squares)
    documents = documents_of(trained, examples)
    known = trained.vocabulary
    check_pictures(trained.images, known, examples, documents)
    ranges = [
        each.model_copy(update={"order": "coarse-first", "scales": nested_scales((4, 4))})
        if each.modality == "image"
        else each
        for each in known.ranges
    ]
    other = known.model_copy(update={"ranges": tuple(ranges)})
    with pytest.raises(InconsistentError, match=r"failed \(decoding\)"):
        check_pictures(trained.images, other, examples, documents)


def test_a_cache_that_forgets_is_found(
    trained: Run, squares: Squares, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(trained, examples_of(squares))
    check_cache(trained.model, trained.vocabulary, documents)
    extend = LayerCache.extend

    def forget(
        self: LayerCache, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        all_keys, all_values = extend(self, keys, values)
        return all_keys, torch.cat((all_values[:, :, :1] * 0, all_values[:, :, 1:]), dim=2)

    monkeypatch.setattr(LayerCache, "extend", forget)
    with pytest.raises(InconsistentError, match=r"failed \(sampling\)"):
        check_cache(trained.model, trained.vocabulary, documents)


def test_a_training_checks_its_first_step_and_its_checkpoints(
    squares: Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extend = LayerCache.extend
    monkeypatch.setattr(
        LayerCache, "extend", lambda self, k, v: extend(self, k.flip(1).contiguous(), v)
    )
    with pytest.raises(InconsistentError) as stopped:
        train_run(squares, tmp_path, SETTINGS)
    assert stopped.value.exit_code == FAILED
    assert newest_checkpoint(tmp_path) is not None
