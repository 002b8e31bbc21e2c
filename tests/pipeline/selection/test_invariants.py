"""What holds whatever the rules are."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.selection.settings import SelectSettings
from tests.pipeline.selection.rows import decide, fit, picture, record, score, write_part

SCORES = ("clip_score", "caption_quality", "entropy", "chance")
KINDS = ("caption", "style", "negative", "text", "interleave")
numbers = st.floats(0, 1, width=16)
shares = st.sampled_from([0.1, 0.3, 0.5, 0.9])
groups = st.sampled_from([None, "source", "style"])
rules = st.one_of(
    st.builds(dict, min=numbers),
    st.builds(dict, max=numbers),
    st.builds(dict, quantile=shares, within=groups),
)
rule_sets = st.dictionaries(st.sampled_from(SCORES), rules, max_size=3)
tops = st.one_of(
    st.builds(dict, score=st.sampled_from(SCORES), share=shares, within=groups),
    st.builds(dict, score=st.sampled_from(SCORES), most=st.integers(1, 6), within=groups),
)
selections = st.builds(
    SelectSettings,
    rules=rule_sets,
    any=st.lists(rule_sets.filter(bool), max_size=2),
    top=st.lists(tops, max_size=2),
    drop_duplicates=st.booleans(),
    mixed_share=numbers,
    weights=st.sampled_from([{}, {"clip_score": {"low": 0.2, "high": 0.6}}]),
)


def some_part(seed, name):
    """Records with texts of all kinds, by the seed of a generator."""
    chance = random.Random(f"{seed}-{name}")  # noqa: S311 - rows for a test
    part = {"records": [], "scores": [], "pictures": [], "duplicates": []}
    nexts, styles = {}, {}
    ids = [f"{name}{number:02}" for number in range(chance.randint(1, 12))]
    for record_id in ids:
        has_image = chance.random() < 0.8
        part["records"].append(
            record(
                record_id,
                image_id="i" if has_image else None,
                document=chance.choice([None, None, "d", "e"]),
                source=chance.choice(["one", "two", "it's"]),
                split=chance.choice(["train", "train", "validation"]),
            )
        )
        texts = [("original", "original")] + [
            (f"{record_id}-{kind}", kind) for kind in KINDS if chance.random() < 0.4 * has_image
        ]
        for variant_id, kind in texts:
            own = {name: chance.choice([None, chance.random(), 0.5]) for name in ("clip_score",)}
            quality = chance.choice([1.0, 0.75])
            part["scores"].append(
                score(record_id, variant_id, kind, caption_quality=quality, **own)
            )
            styles[variant_id] = chance.choice(["ink", "clay"]) if kind == "style" else None
            nexts[variant_id] = chance.choice(ids) if kind == "interleave" else None
        if has_image:
            part["pictures"].append(picture(record_id, entropy=chance.random()))
        if chance.random() < 0.2:
            part["duplicates"].append({"record_id": record_id, "duplicate_of": "another"})
    return part | {"nexts": nexts, "styles": styles}


@settings(deadline=None, max_examples=25)
@given(selections, st.integers(0, 10_000))
def test_every_text_is_kept_or_rejected_once_whatever_the_rules(tmp_path_factory, chosen, seed):
    folder = tmp_path_factory.mktemp("select")
    part = some_part(seed, "a")
    files = write_part(folder, "a", **part)
    fit(folder, chosen)
    output = decide(folder, chosen, files)
    whole = {row["record_id"] for row in output.rejects if row["variant_id"] is None}
    ends = Counter((row["record_id"], row["variant_id"]) for row in output.rows)
    ends.update(
        (row["record_id"], row["variant_id"]) for row in output.rejects if row["variant_id"]
    )
    for text in part["scores"]:
        expected = 0 if text["record_id"] in whole else 1
        assert ends[text["record_id"], text["variant_id"]] == expected
    assert sum(row["variant_id"] is None for row in output.rejects) == len(whole)
    assert {row["record_id"] for row in output.rows} | whole == {
        row["record_id"] for row in part["records"]
    }
    assert all(row["reason"] and row["stage"] == "select" for row in output.rejects)


@settings(deadline=None, max_examples=8)
@given(selections, st.integers(0, 10_000))
def test_the_order_of_rows_and_parts_decides_nothing(tmp_path_factory, chosen, seed):
    def ends(folder, names, mix):
        files = {}
        for name in names:
            part = some_part(seed, name)
            for rows in ("records", "scores", "pictures", "duplicates"):
                mix(part[rows])
            # Parts are read in the order of their names.
            files[name] = write_part(folder, f"{names.index(name)}-{name}", **part)
        fit(folder, chosen)
        outputs = [decide(folder, chosen, files[name]) for name in sorted(names)]
        rows = [row for output in outputs for row in [*output.rows, *output.rejects]]
        return sorted(rows, key=repr)

    forwards = ends(tmp_path_factory.mktemp("one"), ["a", "b"], list.copy)
    backwards = ends(tmp_path_factory.mktemp("other"), ["b", "a"], list.reverse)
    assert forwards == backwards
