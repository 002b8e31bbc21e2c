import numpy as np
import torch

from trainer.data.batch import Batch, collate, corrupt_codes
from trainer.data.packing import build_row

CODES = range(100, 164)


def batch_of(num_rows: int, *, num_codes: int = 400) -> Batch:
    rng = np.random.default_rng(0)
    documents = [
        np.concatenate([np.arange(20), rng.integers(CODES.start, CODES.stop, num_codes), [20]])
        for _ in range(num_rows)
    ]
    rows = [build_row([each], seq_len=num_codes + 30, pad=0) for each in documents]
    return collate(rows, torch.device("cpu"))


def test_corruption_replaces_codes_that_are_read_and_no_target() -> None:
    batch = batch_of(200)
    changed = corrupt_codes(batch, CODES, 0.6, torch.Generator().manual_seed(0))
    is_code = (batch.tokens >= CODES.start) & (batch.tokens < CODES.stop)
    assert torch.equal(changed.tokens[~is_code], batch.tokens[~is_code])
    assert ((changed.tokens[is_code] >= CODES.start) & (changed.tokens[is_code] < CODES.stop)).all()
    assert torch.equal(changed.targets, batch.targets)
    differs = ((changed.tokens != batch.tokens) & is_code).sum(1) / is_code.sum(1)  # (B,)
    # Uniform up to 0.6; of the codes that are drawn, one in 64 is the one that was there.
    assert differs.max() < 0.7
    assert differs.min() < 0.1
    assert 0.25 < differs.mean() < 0.35


def test_corruption_follows_from_its_generator() -> None:
    batch = batch_of(4)
    one, again, other = (
        corrupt_codes(batch, CODES, 0.6, torch.Generator().manual_seed(seed)).tokens
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
