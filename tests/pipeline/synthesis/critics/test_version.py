from types import SimpleNamespace

import pytest

from jobs import stages
from jobs.recipe import Recipe


def test_changed_verdicts_judge_every_text_again_and_ask_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "sources": [{"kind": "shapes"}],
            "synthesis": {
                "backend": "openai", "model": "served", "endpoint": {"base_url": "http://h/v1"},
            },
        }
    )  # fmt: skip
    corpus = SimpleNamespace(parts=[SimpleNamespace(name="part")])

    def decides(stage: str) -> object:
        (spec,) = [step for step in stages.steps(recipe) if step.name == stage]
        return stages.part_extras(spec, recipe, corpus)["part"]  # type: ignore[arg-type]

    before = [decides(stage) for stage in ("ask", "synthesize")]
    monkeypatch.setattr(stages, "CRITICS", stages.CRITICS + 1)
    assert decides("ask") == before[0]
    assert decides("synthesize") != before[1]
