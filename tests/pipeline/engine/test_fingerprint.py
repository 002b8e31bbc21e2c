from pipeline.engine.fingerprint import fingerprint, hash_folder, unit_interval


def test_a_fingerprint_does_not_depend_on_the_order_of_names():
    assert fingerprint(a=1, b={"x": 1, "y": 2}) == fingerprint(b={"y": 2, "x": 1}, a=1)
    assert fingerprint(a=1) != fingerprint(a=2)


def test_fingerprints_stay_the_same_over_versions_of_anymix():
    # A change here would redo every corpus. printf %s '{"stage":"ingest","version":1}' | sha256sum
    assert fingerprint(stage="ingest", version=1) == "425ce8e2a8c7a520"


def test_a_folder_is_known_by_names_and_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = hash_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert hash_folder(tmp_path) != first


def test_the_unit_interval_is_filled_evenly():
    values = [unit_interval("split", str(index)) for index in range(4000)]
    assert all(0 <= value < 1 for value in values)
    assert 0.45 < sum(value < 0.5 for value in values) / len(values) < 0.55
