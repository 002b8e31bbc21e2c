"""What may follow in a document, and what is kept of one that was cut off."""

import numpy as np
import pytest
import torch

from tests.trainer.test_engine import PLAIN, SIDED, documents
from tokenizer_cache.vocabulary import Vocabulary
from trainer.data.sequence import Writer, codes_of, codes_segment, read_document, text_segment
from trainer.generate.grammar import BETWEEN, ENDED, Grammar, State

OPENS = ("text", "image", "audio")


def states(vocabulary: Vocabulary, tokens: list[int]) -> list[State]:
    """The states behind each token; each must be one that may follow."""
    grammar = Grammar(vocabulary, opens=OPENS)
    found = [BETWEEN]
    for token in tokens:
        assert token in grammar.ids(grammar.kind(found[-1]), torch.device("cpu"))
        found.append(grammar.after(found[-1], token))
    return found[1:]


@pytest.mark.parametrize("vocabulary", [PLAIN, SIDED], ids=["plain", "with sides"])
def test_every_document_of_the_writer_may_be_written(vocabulary: Vocabulary) -> None:
    document = documents(vocabulary)[0]
    found = states(vocabulary, Writer(vocabulary).write(document).tokens.tolist())
    assert found[-1] == ENDED
    assert found.count(BETWEEN) == len(document)


@pytest.mark.parametrize("vocabulary", [PLAIN, SIDED], ids=["plain", "with sides"])
def test_a_document_that_is_cut_off_anywhere_can_be_read(vocabulary: Vocabulary) -> None:
    document = documents(vocabulary)[0]
    tokens = Writer(vocabulary).write(document).tokens.tolist()
    grammar = Grammar(vocabulary, opens=OPENS)
    for num, state in enumerate(states(vocabulary, tokens), start=1):
        read = read_document(grammar.close(tokens[:num], state), vocabulary)
        assert [each.modality for each in read] == [each.modality for each in document[: len(read)]]
        for each, whole in zip(read, document, strict=False):
            assert each.ids.tolist() == whole.ids[: each.size].tolist()
            assert each.size == whole.size or each.modality != "image"
            assert each.modality == "text" or codes_of(each, vocabulary).size


def test_a_picture_ends_after_its_last_code_and_a_sound_after_a_frame() -> None:
    grammar, cpu = Grammar(PLAIN, opens=OPENS), torch.device("cpu")
    end = PLAIN.special("</aud>")
    assert grammar.ids(State("image", 0), cpu).tolist() == [PLAIN.special("</img>")]
    may_end = [end in grammar.ids(grammar.kind(State("audio", num)), cpu) for num in range(5)]
    assert may_end == [False, False, True, False, True]


def test_only_asked_modalities_are_opened_and_without_one_a_segment_is_the_last() -> None:
    cpu, eos = torch.device("cpu"), PLAIN.special("<eos>")
    asked = Grammar(PLAIN, opens=("image",)).ids(BETWEEN, cpu).tolist()
    assert asked == [PLAIN.special("<img>"), eos]
    text = Writer(PLAIN).write([text_segment([1], PLAIN)], ends=False).tokens.tolist()
    assert Grammar(PLAIN).after(State("text"), text[-1]) == ENDED


def test_a_sound_without_a_whole_frame_is_dropped() -> None:
    sound = codes_segment(np.array([[0, 1]]), PLAIN.range_of("audio"))
    tokens = Writer(PLAIN).write([sound], ends=False).tokens.tolist()
    assert Grammar(PLAIN).close(tokens[:2], State("audio", 1)) == []
