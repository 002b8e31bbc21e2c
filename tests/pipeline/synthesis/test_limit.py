import pytest

from pipeline.engine.schemas import RECORDS
from pipeline.engine.stage import FitInputs
from pipeline.engine.tables import write_table
from pipeline.synthesis.limit import LimitSettings, chance, fit, read_cut


@pytest.fixture
def inputs(tmp_path):
    """50 records with an image and 50 without."""
    filled = {field.name for field in RECORDS if field.type == "string"}
    row = {name: "x" if name in filled else None for name in RECORDS.names}
    row |= {"more_captions": [], "repairs": [], "opt_outs": []}
    rows = [
        row | {"record_id": f"r{index}", "image_id": "i" if index < 50 else None}
        for index in range(100)
    ]
    write_table(tmp_path / "records.parquet", rows, RECORDS)
    return FitInputs(tables={"records": [tmp_path / "records.parquet"]}, models={})


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (20, 20), (50, 50), (80, 50)])
def test_the_cut_lets_in_as_many_image_records_as_the_limit_says(tmp_path, inputs, limit, expected):
    list(fit(LimitSettings(limit=limit), inputs, tmp_path))
    cut = read_cut(tmp_path)
    assert sum(chance(f"r{index}") < cut for index in range(50)) == expected
