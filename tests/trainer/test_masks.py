import torch

from trainer.masks import document_mask, grid_places


def test_a_token_sees_itself_and_what_is_before_it_in_its_document() -> None:
    visible = document_mask(torch.tensor([[1, 1, 2, 2, 0]]))[0, 0]
    assert visible.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_places_count_the_codes_of_each_picture() -> None:
    text, begin, end, code = 9, 4, 5, 50
    tokens = torch.tensor([[text, begin, code, code, code, end, text, begin, code, code]])
    places = grid_places(tokens, begin=begin, first_code=50, codebook_size=10)
    assert places.tolist() == [[0, 1, 2, 3, 4, 0, 0, 1, 2, 3]]
