"""Which records of a part belong together: chains of two to four for interleaved documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise

from pipeline.engine.fingerprint import unit_interval
from pipeline.synthesis.critics.claims import is_content
from pipeline.synthesis.critics.words import split_words

SIZES = (2, 3, 4)
"""How many records a chain may have; drawn by the hash of its first one."""

_MAX_SHARERS = 64
"""Records that are looked at for a word. Of a word that more have, it says little that two share
it, and looking at all would cost the square of a part."""


def link_related(captions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """For each record but the last of a chain, the record that follows it.

    A chain starts at a record that has none yet, in the order of the ids, and takes those that have
    most words in common with it, rare words counting more. Records whose captions say the same are
    not put together.

    Args:
        captions: what each record states; the first caption counts.
    """
    words = {
        record_id: frozenset(word.stem for word in split_words(stated[0]) if is_content(word))
        for record_id, stated in sorted(captions.items())
    }
    sharers: dict[str, list[str]] = defaultdict(list)
    for record_id, own in words.items():
        for word in own:
            sharers[word].append(record_id)
    links: dict[str, str] = {}
    taken: set[str] = set()
    for record_id in words:
        if record_id not in taken:
            chain = _chain(record_id, words, sharers, taken)
            links.update(pairwise(chain))
            taken.update(chain if len(chain) > 1 else ())
    return links


def _chain(
    first: str,
    words: Mapping[str, frozenset[str]],
    sharers: Mapping[str, Sequence[str]],
    taken: Set[str],
) -> list[str]:
    """A record and those that are nearest to it, of the ones that no chain has taken."""
    nearness: dict[str, float] = defaultdict(float)
    for word in sorted(words[first]):
        for other in sharers[word][:_MAX_SHARERS]:
            nearness[other] += 1 / len(sharers[word])
    size = SIZES[int(unit_interval("chain", first) * len(SIZES))]
    chain = [first]
    for other in sorted(nearness, key=lambda other: (-nearness[other], other)):
        is_new = all(words[other] != words[each] for each in chain)
        if len(chain) < size and is_new and other not in taken:
            chain.append(other)
    return chain
