"""Whether the backend works at all: a sick one must not fill a corpus with rejects.

A request that has failed is rejected only when the requests after it have shown that the backend is
well; until then nothing of it is kept, so that another run asks again. Answers that cannot be read
are kept, since they are paid for; but when a run begins with nothing else, it asks for no more.
"""

from __future__ import annotations

from collections import Counter, deque

from pipeline.errors import FAILED, UserError
from pipeline.synthesis.backends.errors import REFUSED, classify, is_of_the_request

WINDOW = 50
"""How many of the last requests are looked at, and have to come after a failure."""

_HINTS = {
    "vllm": "Read the engine's log in Ray's session folder, and check synthesis.engine.",
    "openai": "Check the server of synthesis.endpoint, or send it less at a time (concurrency, "
    "requests_per_minute).",
    "replay": "The answers were recorded with other records, prompts or sampling settings: set "
    "synthesis.replay to those of this recipe.",
}


NUM_FIRST = 50
"""How many of a run's first answers are looked at before more are paid for."""

MOST_USELESS = 45
"""How many of those may be of no use. Ours: nine in ten. Of what a small model of one's own writes
the critics refuse nearly half, but they can read nearly all of it."""

_REMEDIES = {
    "synthesis-malformed-json": "The model does not keep to JSON: see response_format of "
    "synthesis.endpoint, or take another model.",
    "synthesis-cut-off": "Raise synthesis.max_tokens: reasoning takes hundreds to thousands.",
    "synthesis-empty": "Check what the server makes of the prompt, or take another model.",
    REFUSED: "Take another model, or word the prompts otherwise (synthesis.templates).",
}


class FirstAnswers:
    """What the first answers of a run are worth; those to a text's first prompt count."""

    def __init__(self) -> None:
        self._num_seen = 0
        self._useless: list[tuple[str, str]] = []

    def note(self, reason: str = "", example: str = "") -> None:
        """Take in an answer, and why it is of no use; what the critics say of it does not count."""
        self._num_seen += 1
        if reason and self._num_seen <= NUM_FIRST:
            self._useless.append((reason, example))

    def check(self) -> None:
        """See that some of the first answers are of use.

        Raises:
            UserError: when more than 45 of the first 50 are not.
        """
        if len(self._useless) <= MOST_USELESS:
            return
        reason, num = Counter(reason for reason, _ in self._useless).most_common(1)[0]
        example = next(example for each, example in self._useless if each == reason)
        raise UserError(
            f"synthesis: {len(self._useless)} of the first {NUM_FIRST} answers are of no use, "
            f"{num} of them for {reason}. For example: {example}",
            f"{_REMEDIES[reason]} What was answered stays.",
            exit_code=FAILED,
        )


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
