"""How much of each stream comes next, so that the mix is kept exactly and at every moment.

Training goes through windows. After each one every stream has given its share of all that was
given so far, to one document; no draw is involved, so that the order is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

STREAMS = ("text", "image", "mixed", "audio")


def shares(amounts: Mapping[str, float]) -> dict[str, float]:
    """Each stream's part of the whole; all 0 where there is nothing."""
    total = sum(amounts.values())
    return {stream: amount / total if total else 0.0 for stream, amount in amounts.items()}


def quota(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """How much each stream has given when all of them together have given `total`.

    Args:
        weights: weight of each stream that has documents; all above 0.
        total: tokens or samples, whatever the mix is measured in.

    Returns:
        Whole numbers that sum up to `total`, each less than 1 from its share.
    """
    wanted, given, result = 0.0, 0, {}
    for stream, share in shares(weights).items():
        wanted += share * total
        result[stream] = round(wanted) - given
        given += result[stream]
    return result
