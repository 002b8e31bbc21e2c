import torch

from trainer.model.masks import document_mask


def test_a_token_sees_itself_and_what_is_before_it_in_its_document() -> None:
    visible = document_mask(torch.tensor([[1, 1, 2, 2, 0]]))[0, 0]
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
