"""Whether the backend works at all: a sick one must not fill a corpus with rejects.

A request that has failed is rejected only when the requests after it have shown that the backend is
well; until then nothing of it is kept, so that another run asks again.
"""

from __future__ import annotations

from collections import deque

from pipeline.errors import FAILED, UserError
from pipeline.synthesis.backends.errors import classify, is_of_the_request

WINDOW = 50
"""How many of the last requests are looked at, and have to come after a failure."""

_HINTS = {
    "vllm": "Look into the engine's log in Ray's session folder, and at synthesis.engine.",
    "openai": "Look after the server of synthesis.endpoint, or ask it for less at a time "
    "(concurrency, requests_per_minute).",
    "replay": "The answers were recorded with other records, prompts or sampling settings: set "
    "synthesis.replay to those of this recipe.",
}


class Health:
    """What has become of a run's requests; errors that are the request's own count as answers."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.num_seen = 0
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._has_answered = False
        self._last = ""

    def note(self, error: str) -> None:
        """Take in how a request has ended; an empty error is an answer."""
        failed = is_fault(error)
        self.num_seen += 1
        self._failed.append(failed)
        self._has_answered |= not failed
        self._last = error if failed else self._last

    def check(self) -> None:
        """See that most of the last requests were answered.

        Raises:
            UserError: when more than half of the last 50 were not.
        """
        if len(self._failed) == WINDOW and sum(self._failed) > WINDOW / 2:
            raise self._sick()

    def check_at_the_end(self) -> None:
        """See that failures may be the requests' own when no others come after them.

        Raises:
            UserError: when several requests have failed, and none has been answered.
        """
        if sum(self._failed) > 1 and not self._has_answered:
            raise self._sick()

    def _sick(self) -> UserError:
        reason, detail = classify(self._last)
        return UserError(
            f"synthesis: {sum(self._failed)} of the last {len(self._failed)} requests have failed; "
            f"the last: {detail} ({reason})",
            f"{_HINTS[self._backend]} What was answered stays, and what failed is asked again by "
            "the same command.",
            exit_code=FAILED,
        )


def is_fault(error: str) -> bool:
    """Whether a request has failed for a reason that may be the backend's."""
    return bool(error) and not is_of_the_request(error)
