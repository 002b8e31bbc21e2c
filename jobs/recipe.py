"""A recipe: one YAML file that says everything about a run.

Every section's model stands beside the code that it sets; this module only composes them. An error
names the file, the line, the field and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from filters.duplicates.settings import DuplicateSettings
from filters.settings import HEADS, RightsSettings, ScoreSettings
from jobs.recipe_problems import Problems, truths_for_numbers
from pipeline.errors import UserError
from pipeline.ingest import IngestSettings
from pipeline.selection.settings import SelectSettings
from pipeline.settings import Settings
from pipeline.sources import SourceSettings
from pipeline.sources.folder import SoundsSettings
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.yaml_files import WrongYamlError, parse_yaml, read_yaml
from tokenizer_cache.audio.settings import AudioSettings, AudioTokenizerSettings
from tokenizer_cache.settings import (
    ImageTokenizerSettings,
    ShardSettings,
    TextSettings,
    TokenizeSettings,
    VQSettings,
)
from trainer.evaluate.settings import EvaluateSettings
from trainer.generate.settings import SampleSettings
from trainer.settings import TrainSettings


class RunSettings(Settings):
    """Where the work runs; nothing here changes a byte of the output."""

    num_workers: int = Field(default=2, ge=0)
    """Workers of each stage. 0 runs the stages in this process, without Ray."""
    timeout_s: float | None = Field(default=600, gt=0)
    """Longest that a worker may be at one record (or one batch), in seconds, before it is taken to
    hang and started again; null sets no limit. Without Ray there is none."""


class Recipe(Settings):
    """Everything about a corpus and the model that is trained on it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the corpus, as the dataset card shows it."""
    description: str = ""
    """A sentence or two for the dataset card."""
    sources: list[SourceSettings] = Field(min_length=1)
    """Where the records come from."""
    ingest: IngestSettings = IngestSettings()
    synthesis: SynthesisSettings = SynthesisSettings(limit=0)
    score: ScoreSettings = ScoreSettings()
    rights: RightsSettings = RightsSettings()
    duplicates: DuplicateSettings = DuplicateSettings()
    select: SelectSettings = SelectSettings()
    image_tokenizer: ImageTokenizerSettings = VQSettings()
    tokenize: TokenizeSettings = TokenizeSettings()
    text_tokenizer: TextSettings = TextSettings()
    audio_tokenizer: AudioTokenizerSettings = AudioSettings()
    """Used where a source has sounds."""
    shards: ShardSettings = ShardSettings()
    train: TrainSettings = TrainSettings()
    sample: SampleSettings = SampleSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    run: RunSettings = Field(default=RunSettings(), exclude=True)

    @field_validator("duplicates")
    @classmethod
    def _features_are_of_one_model(
        cls, duplicates: DuplicateSettings, info: ValidationInfo
    ) -> DuplicateSettings:
        score = info.data.get("score")
        if duplicates.semantic is not None and score and score.clip.kind == "trained":
            message = (
                "semantic compares CLIP's features, and those of a CLIP that is trained on the "
                "corpus are of another model in each fold: take perceptual, or another score.clip"
            )
            raise ValueError(message)
        return duplicates

    @field_validator("select")
    @classmethod
    def _heads_are_there(cls, select: SelectSettings, info: ValidationInfo) -> SelectSettings:
        score = info.data.get("score")
        needed = select.scores() & set(HEADS)
        if score and not needed <= score.heads.keys():
            message = f"{', '.join(sorted(needed))}: there is no such head in score.heads"
            raise ValueError(message)
        return select

    @property
    def has_sounds(self) -> bool:
        """Whether a source may give sounds."""
        return any(isinstance(source, SoundsSettings) for source in self.sources)

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: list[SourceSettings]) -> list[SourceSettings]:
        names = [source.name for source in sources]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            message = f"two sources are called {twice.pop()!r}: give one another `name`"
            raise ValueError(message)
        return sources


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file.
        changes: `key=value` with dotted keys (`synthesis.limit=20`, `sources.0.size=32`) and YAML
            values, applied on top of the file.

    Raises:
        UserError: naming the file, the line, the field and what is allowed.
    """
    document = read_yaml(path)
    if not isinstance(document.content, dict):
        hint = f"A recipe starts with `name:` and `sources:`. {_RECIPES}"
        raise UserError(f"{path} holds no recipe", hint)
    content = document.content
    for change in changes:
        content = _apply(content, change)
    context = {"recipe_folder": path.parent}
    told = Problems(model=Recipe, path=path, node=document.node, changes=changes)
    try:
        recipe = Recipe.model_validate(content, context=context)
        problems = [told.describe(problem) for problem in truths_for_numbers(content, recipe)]
    except ValidationError as error:
        if changes:
            told = replace(told, of_file=frozenset(_problems(document.content, context)))
        problems = [told.describe(problem) for problem in error.errors()]
    if problems:
        raise UserError("\n".join(problems))
    return recipe


def read_resolved_recipe(path: Path) -> Recipe:
    """The recipe that `dump_recipe` wrote into a corpus or a run.

    Raises:
        UserError: when it was written by a version of anymix that had other settings.
    """
    try:
        return Recipe.model_validate(read_yaml(path).content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise UserError(
            f"{path} is of another version of anymix: {problems}",
            "Run `anymix run RECIPE` or `anymix train RECIPE` with this version.",
        ) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every default filled in."""
    return yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a recipe holds
    """Settings as dicts, with the fields that `model_dump` leaves out of the fingerprint."""
    if isinstance(value, Settings):
        return {name: _plain(item) for name, item in value}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)  # a path


_RECIPES = "Recipes that come with anymix are in jobs/recipes/."


def _apply(content: dict[str, Any], change: str) -> dict[str, Any]:
    """The recipe with one dotted key set."""
    key, separator, value = change.partition("=")
    if not separator:
        raise UserError(f"{change}: not of the form key=value", "Example: synthesis.limit=20")
    try:
        parsed = parse_yaml(value).content
    except WrongYamlError as error:
        raise UserError(f"{change}: the value: {error}") from error
    changed: dict[str, Any] = _with(content, key.split("."), parsed, change)
    return changed


def _with(place: Any, way: Sequence[str], value: Any, change: str) -> Any:  # noqa: ANN401
    """A section with a value in it set; the rest is shared with the section as it was."""
    step, *rest = way
    changed: Any = list(place) if isinstance(place, list) else dict(place)
    key: Any = _index(place, step, change) if isinstance(place, list) else step
    if rest:
        below = changed[key] if isinstance(place, list) else changed.get(key)
        if not isinstance(below, dict | list | None):
            raise UserError(f"{change}: {step!r} holds a single value, not a section")
        value = _with({} if below is None else below, rest, value, change)
    changed[key] = value
    return changed


def _index(items: list[Any], step: str, change: str) -> int:
    if not step.isdecimal() or int(step) >= len(items):
        allowed = f"0 to {len(items) - 1}" if items else "there is none"
        raise UserError(f"{change}: {step!r} is not the number of an entry ({allowed})")
    return int(step)


def _problems(content: Any, context: dict[str, Any]) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """Where a recipe is wrong, and how."""
    try:
        Recipe.model_validate(content, context=context)
    except ValidationError as error:
        yield from ((problem["loc"], problem["type"]) for problem in error.errors())
