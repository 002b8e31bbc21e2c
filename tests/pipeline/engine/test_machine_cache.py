"""Where a machine keeps what it can fetch again."""

from pathlib import Path

import pytest

from pipeline.engine.machine_cache import cache_folder


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANYMIX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "anymix"
    monkeypatch.setenv("ANYMIX_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
