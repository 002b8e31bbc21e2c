"""What an audit says of a corpus that it may not write to."""

import errno

import pytest

from jobs.upkeep import audit
from pipeline.engine.events import EventLog


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_corpus_that_cannot_be_written_is_audited_all_the_same(root, monkeypatch, number):
    expected = audit(root)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no writing here")

    monkeypatch.setattr(EventLog, "write", refuse)  # root may write wherever modes forbid it
    assert audit(root) == expected


def test_a_full_disk_is_still_an_error_of_an_audit(root, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(EventLog, "write", refuse)
    with pytest.raises(OSError, match="full"):
        audit(root)
