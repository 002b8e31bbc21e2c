from pipeline.engine.attempts import Attempts


def test_a_file_that_a_power_cut_left_empty_says_nothing(tmp_path):
    path = tmp_path / "part.json"
    path.write_text("")
    attempts = Attempts.at(path, "run")
    attempts.begin()
    assert len(Attempts.at(path, "run").tries) == 1
