from jobs.dry_run import plan
from jobs.run import open_corpus
from pipeline.ledger.audit import audit
from pipeline.ledger.explain import explain
from pipeline.sources.shapes import draw
from tests.jobs.corpora import run


def test_near_copies_and_copies_of_an_evaluation_set_leave(corpus, load, tmp_path):
    held_out = tmp_path / "held-out"
    held_out.mkdir()
    draw(2, size=32, seed=0)[0].resize((64, 64)).save(held_out / "2.png")
    (held_out / "2.txt").write_text("shapes")
    recipe = load(
        "duplicates.perceptual=0.01",
        f"duplicates.against=[{{kind: folder, name: coco, path: {held_out}}}]",
    )
    run(recipe, corpus)
    _, filled = open_corpus(corpus)
    rejects = filled.query(
        "SELECT record_id, key, detail, score, threshold FROM rejects JOIN records"
        " USING (record_id) WHERE reason = 'duplicate-evaluation' ORDER BY key"
    ).fetchall()
    assert "0:32:000000002" in {key for _, key, *_ in rejects}
    for record, _, detail, score, threshold in rejects:
        assert detail == "a copy of coco/2.png, which is for evaluation"
        assert 0 <= score <= threshold < 0.011
        assert explain(filled, record)["duplicate_of"] == ["coco/2.png"]
    near = filled.query(
        "SELECT count(*) FROM duplicates WHERE method = 'perceptual' AND distance <= threshold"
        " AND duplicate_of NOT IN (SELECT record_id FROM duplicates)"
    ).fetchall()
    assert near[0][0] > 0
    assert not [each for each in audit(filled) if each.faults]
    assert not [step for step in plan(recipe, corpus) if step.parts or step.reasons]
