from hypothesis import given
from hypothesis import strategies as st

from pipeline.synthesis.related import SIZES, link_related

WORDS = st.lists(st.sampled_from(["red", "apple", "dog", "cat", "man", "flag"]), max_size=4)
CAPTIONS = st.dictionaries(
    st.text(min_size=1, max_size=4), WORDS.map(lambda words: (" ".join(words),))
)


def chains(links: dict[str, str]) -> list[list[str]]:
    found = []
    for first in links.keys() - set(links.values()):
        chain = [first]
        while chain[-1] in links:
            chain.append(links[chain[-1]])
        found.append(chain)
    return found


@given(CAPTIONS)
def test_chains_have_two_to_four_records_each_in_one_chain(captions) -> None:
    links = link_related(captions)
    found = chains(links)
    members = [record for chain in found for record in chain]
    assert len(members) == len(set(members)) == len(links) + len(found)
    assert all(min(SIZES) <= len(chain) <= max(SIZES) for chain in found)
    assert set(members) <= captions.keys()
    assert links == link_related(dict(reversed(captions.items())))


@given(CAPTIONS)
def test_neighbours_share_a_word_with_the_first_and_say_something_else(captions) -> None:
    for first, *others in chains(link_related(captions)):
        for other in others:
            assert set(captions[first][0].split()) & set(captions[other][0].split())
            assert set(captions[first][0].split()) != set(captions[other][0].split())


def test_rare_words_bring_records_together() -> None:
    captions = {"a": ("man singer",), "b": ("woman singer",), "c": ("man dark",), "d": ("man old",)}
    assert link_related(captions)["a"] == "b"
