"""What is shown of long work, on a terminal and in a log file."""

import io

import pytest
from rich.console import Console

from pipeline import progress
from pipeline.progress import counting, shown_on, working


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_work_has_a_line_when_it_begins_and_one_with_what_it_gave() -> None:
    log = console()
    with shown_on(log), working("train", "steps") as show:
        show(1, 2, "loss 3.00")
        show(2, 2, "loss 2.00")
    begun, ended = text_of(log).splitlines()
    assert begun.split() == ["train", "…"]
    assert ended.startswith("train          loss 2.00, ")


def test_work_that_says_nothing_is_done() -> None:
    log = console()
    with shown_on(log), working("eval texts"):
        pass
    assert "eval texts     done, " in text_of(log)


def test_a_log_has_a_line_now_and_then_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    log = console()
    with shown_on(log), counting("drawing") as show:
        show(64, 128, "codes")
    assert text_of(log) == "drawing        64/128 codes\n"


def test_a_part_that_is_over_at_once_leaves_nothing_in_a_log() -> None:
    log = console()
    with shown_on(log), counting("drawing") as show:
        show(64, 64, "codes")
    assert text_of(log) == ""


def test_a_terminal_has_a_bar_for_the_work_and_one_for_its_part() -> None:
    terminal = console(terminal=True)
    with shown_on(terminal), working("eval texts", "pairs") as show:
        show(1, 4, "long " * 30)
        with counting("drawing") as count:
            count(8, 64, "codes")
            progress._SHOWN.get()._live.refresh()
    shown = text_of(terminal)
    assert "eval texts " in shown, "figures that are long take no room from the rest"
    assert "1/4 pairs" in shown
    assert "8/64 codes" in shown
    assert "\x1b[?25h" in shown, "the cursor is back"


def test_work_that_fails_takes_its_bar_away_and_says_no_figures() -> None:
    log = console()
    with shown_on(log):
        with pytest.raises(ValueError, match="broken"), working("train") as show:
            show(1, 2, "loss 3.00")
            raise ValueError("broken")
        with working("train"):
            pass
    assert "loss" not in text_of(log)


def test_without_a_console_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with working("train") as show, counting("drawing") as count:
        show(1, 2, "")
        count(1, 2, "codes")
    assert capfd.readouterr() == ("", "")
