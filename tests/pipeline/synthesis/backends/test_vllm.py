from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.synthesis.backends import answer
from pipeline.synthesis.settings import SynthesisSettings


def test_missing_interpreter_stops_before_any_work(tmp_path: Path) -> None:
    untouched: Any = None
    with pytest.raises(UserError, match=r"synthesis\.python"):
        answer(SynthesisSettings(python=tmp_path / "python"), untouched, carried=())
