"""A recipe: one YAML file that says everything about a run.

Every section's model stands beside the code that it sets; this module only composes them. An error
names the file, the line, the field and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from filters.duplicates.settings import DuplicateSettings
from filters.settings import CLIP_KINDS, HEADS, RightsSettings, ScoreSettings
from pipeline.errors import UserError
from pipeline.ingest import IngestSettings
from pipeline.selection.settings import SelectSettings
from pipeline.settings import Settings
from pipeline.sources import SOURCE_KINDS, SourceSettings
from pipeline.sources.folder import SoundsSettings
from pipeline.synthesis.settings import SynthesisSettings
from tokenizer_cache.audio.settings import (
    AUDIO_TOKENIZER_KINDS,
    AudioSettings,
    AudioTokenizerSettings,
)
from tokenizer_cache.settings import (
    IMAGE_TOKENIZER_KINDS,
    ImageTokenizerSettings,
    ShardSettings,
    TextSettings,
    TokenizeSettings,
    VQSettings,
)
from trainer.settings import EvaluateSettings, SampleSettings, TrainSettings


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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", _RECIPES) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe", "A recipe starts with `name:` and `sources:`.")
    for change in changes:
        _apply(content, change)
    try:
        return Recipe.model_validate(content, context={"recipe_folder": path.parent})
    except ValidationError as error:
        problems = [_describe(path, node, changes, problem) for problem in error.errors()]
        raise UserError("\n".join(problems)) from error


def read_resolved_recipe(path: Path) -> Recipe:
    """The recipe that `dump_recipe` wrote into a corpus or a run.

    Raises:
        UserError: when it was written by a version of anymix that had other settings.
    """
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
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


_UNION_MEMBERS = {
    **SOURCE_KINDS, **IMAGE_TOKENIZER_KINDS, **AUDIO_TOKENIZER_KINDS, **CLIP_KINDS
}  # fmt: skip

_MAY_BE_SECRET = {"api_key_env", "base_url"}
"""Where a person may have written the key itself: an error does not show what it found there."""

_RECIPES = "Recipes that come with anymix are in jobs/recipes/."


def _apply(content: dict[str, Any], change: str) -> None:
    """Set one dotted key of the recipe in place."""
    key, separator, value = change.partition("=")
    if not separator:
        raise UserError(f"{change}: not of the form key=value", "Example: synthesis.limit=20")
    *way, last = key.split(".")
    place: Any = content
    for step in way:
        if isinstance(place, list):
            place = place[_index(place, step, change)]
        else:
            if place.get(step) is None:
                place[step] = {}
            place = place[step]
        if not isinstance(place, dict | list):
            raise UserError(f"{change}: {step!r} holds a single value, not a section")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{change}: the value is not YAML: {error}") from error
    place[_index(place, last, change) if isinstance(place, list) else last] = parsed


def _index(items: list[Any], step: str, change: str) -> int:
    if not step.isdigit() or int(step) >= len(items):
        allowed = f"0 to {len(items) - 1}"
        raise UserError(f"{change}: {step!r} is not the number of an entry ({allowed})")
    return int(step)


def _describe(
    path: Path,
    node: yaml.Node | None,
    changes: Sequence[str],
    problem: Any,  # noqa: ANN401 - pydantic's
) -> str:
    """One line for one problem: file, line, field, what was found and what is allowed.

    Where a change of the file has set the field, the change takes the place of file and line.
    """
    line, way = _find(node, problem["loc"])
    field = ".".join(map(str, way))
    made_by = [each for each in changes if f"{field}.".startswith(f"{each.partition('=')[0]}.")]
    place = f"{made_by[-1] if made_by else f'{path}:{line}'}: {field}"
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(_model_at(problem["loc"][:-1]).model_fields)
        return f"{place}: there is no such setting. Allowed here: {allowed}."
    found = problem["input"]
    is_silent = problem["type"] == "missing" or isinstance(found, dict) or way[-1] in _MAY_BE_SECRET
    shown = "" if is_silent else f" (found {found!r})"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _find(node: yaml.Node | None, location: Sequence[str | int]) -> tuple[int, list[str | int]]:
    """The line of the deepest node on the way, and the way as the file's keys."""
    line, way = 1, list[str | int]()
    for name in location:
        is_source = name in SOURCE_KINDS and way[:1] == ["sources"] and len(way) == 2
        is_image = name in IMAGE_TOKENIZER_KINDS and way == ["image_tokenizer"]
        is_clip = name in CLIP_KINDS and way == ["score", "clip"]
        if is_source or is_image or is_clip or name in AUDIO_TOKENIZER_KINDS:
            continue  # pydantic names the member of the union here; the file has no such key
        if name == "[key]":
            continue  # pydantic's word for "the key itself is wrong"
        way.append(name)
        mark, node = _step(node, name)
        line = mark if mark is not None else line
    return line, way


def _step(node: yaml.Node | None, name: str | int) -> tuple[int | None, yaml.Node | None]:
    """The line and the node of one entry of a node, where it has that entry."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(name):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name].start_mark.line + 1, node.value[name]
    return None, None


def _model_at(location: Sequence[str | int]) -> type[Settings]:
    """The settings model of a section of the recipe, by pydantic's location."""
    model: type[Settings] = Recipe
    for name in location:
        if name in _UNION_MEMBERS:
            model = _UNION_MEMBERS[str(name)]
        elif name in model.model_fields:
            annotation = model.model_fields[str(name)].annotation
            for candidate in (annotation, *get_args(annotation)):
                if isinstance(candidate, type) and issubclass(candidate, Settings):
                    model = candidate
    return model
