"""Which stream the next document comes from, so that tokens keep to the mix.

A weighted fair queue (Demers, Keshav and Shenker, SIGCOMM 1989): the next document comes from the
stream whose tokens per weight are fewest. No draw is involved, so that the order is the same on
every machine, and no stream is ever further behind another than one document.
"""

from __future__ import annotations

from collections.abc import Mapping

STREAMS = ("text", "image", "mixed")
"""In the order in which ties are broken."""


def next_stream(weights: Mapping[str, float], num_tokens: Mapping[str, int]) -> str:
    """The stream that is furthest behind its share.

    Args:
        weights: weight of each stream that has documents; all above 0.
        num_tokens: tokens that each stream has given so far.
    """
    return min(weights, key=lambda stream: num_tokens[stream] / weights[stream])


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
    """Each stream's part of the whole; all 0 where there is nothing."""
    total = sum(amounts.values())
    return {stream: amount / total if total else 0.0 for stream, amount in amounts.items()}
