"""Work that is done in a thread while its last result is used: decoding beside a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    function: Callable[[Sequence[_Item]], _Result], items: Sequence[_Item], batch_size: int
) -> Iterator[_Result]:
    """What a function makes of each batch of some items, in their order.

    One batch is worked on while the one before it is used: two are in memory, and no more.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = None
        for start in range(0, len(items), batch_size):
            following = pool.submit(function, items[start : start + batch_size])
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
