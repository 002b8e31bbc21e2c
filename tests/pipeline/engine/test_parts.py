from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.parts import Part, cut, record_id

KEYS = st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=60).map(sorted)


@given(KEYS, st.integers(1, 12))
def test_every_key_is_in_exactly_one_run(keys, rows_per_part):
    runs = [keys[run] for run in cut(keys, rows_per_part)]
    assert [key for run in runs for key in run] == keys
    assert all(0 < len(run) <= 4 * rows_per_part for run in runs)


@given(KEYS, st.integers(2, 12), st.text(min_size=1, max_size=6))
def test_a_new_key_leaves_the_runs_before_it_alone(keys, rows_per_part, new):
    before = [tuple(keys[run]) for run in cut(keys, rows_per_part)]
    more = sorted({*keys, new})
    after = {tuple(more[run]) for run in cut(more, rows_per_part)}
    untouched = [run for run in before[:-1] if run[-1] < new]
    assert set(untouched) <= after


def test_a_new_key_moves_few_runs():
    keys = [f"{index:05d}" for index in range(5000)]
    before = {tuple(keys[run]) for run in cut(keys, 50)}
    more = sorted([*keys, "02500x"])
    after = {tuple(more[run]) for run in cut(more, 50)}
    # One run, or a few where a run was cut for its length: then its neighbours move, too.
    assert len(before - after) <= 3


def test_a_part_is_named_by_source_and_content():
    one = Part.of("a", {"first": "x", "hash": "1"}, num_records=3)
    assert one.name == Part.of("a", {"hash": "1", "first": "x"}, num_records=3, look="z").name
    assert one.name != Part.of("a", {"first": "x", "hash": "2"}, num_records=3).name
    assert one.name.startswith("a-")


def test_record_ids_tell_sources_apart():
    assert record_id("a", "bc") != record_id("ab", "c")
