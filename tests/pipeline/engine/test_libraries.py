from importlib.metadata import version

from pipeline.engine import libraries
from pipeline.engine.libraries import mixed_libraries, remember_libraries


def test_a_corpus_on_which_two_versions_of_a_library_have_worked_says_so(tmp_path, monkeypatch):
    assert mixed_libraries(tmp_path) == []
    remember_libraries(tmp_path)
    remember_libraries(tmp_path)
    assert mixed_libraries(tmp_path) == []
    now = {"pillow": "99.0"}
    monkeypatch.setattr(libraries, "version", lambda name: now.get(name) or version(name))
    remember_libraries(tmp_path)
    assert mixed_libraries(tmp_path) == [f"pillow {version('pillow')}, 99.0"]
