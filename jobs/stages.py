"""From a recipe to its steps, in the order of the flow. Reads like the diagram in the README.

source ─ingest─▶ records ─ask─▶ answers ─synthesize─▶ variants ─score─▶ scores ─select─▶ selection
                    ├───────measure─▶ pictures ────────────────────┴──────────────┤          │
                    ├───────refuse─▶ refusals ────────────────────────────────────┘          │
                    └───────tokenize─▶ tokens, audio_tokens ───────────────────────▶ shards ◀┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from filters.blocklists import lists_fingerprint
from filters.duplicates.settings import EvaluationSettings
from filters.heads import heads_fingerprint
from filters.settings import MeasureSettings
from jobs.recipe import Recipe
from pipeline.engine import schemas, synthesis_schemas, token_schemas
from pipeline.engine.corpus import Corpus
from pipeline.engine.fingerprint import fingerprint
from pipeline.engine.forgotten import FORGOTTEN_FILE
from pipeline.engine.machine_cache import local_copy
from pipeline.engine.parts import ListsFiles, Part
from pipeline.engine.stage import CorpusStepSpec, FitSpec, Resources, StageSpec, Step
from pipeline.errors import UserError
from pipeline.ledger.unread import Unread, describe_unread
from pipeline.selection.cuts import cuts_settings
from pipeline.settings import Settings
from pipeline.sources import open_source
from pipeline.synthesis.critics import VERSION as CRITICS
from pipeline.synthesis.limit import LimitSettings
from pipeline.synthesis.settings import resources_of
from tokenizer_cache.manifest import LAYOUT
from tokenizer_cache.vocabulary import Vocabulary, build_vocabulary

Extras = Mapping[str, Mapping[str, Any]]
"""For each part, JSON values that only this part has."""

_LLM = "pipeline.synthesis.engine:EngineDataflow"
_LLM_WITH_CLIP = "filters.clip_critic:ScoringDataflow"

FIT = Resources(num_cpus=2)
"""What Ray is told that a fit needs. It uses all cores: nothing else runs while it does."""


def steps(recipe: Recipe) -> list[Step]:
    """All steps of a recipe; each reads only what steps before it have written."""
    is_trained = recipe.score.clip.kind == "trained"
    clip = FitSpec(
        name="clip",
        version=2,
        reads=("records",) if is_trained else (),
        settings=recipe.score.clip,
        fit=f"filters.{'clip_bootstrap' if is_trained else 'clip_adopt'}:fit",
        resources=FIT,
    )
    asks_clip = _dataflow(recipe) == _LLM_WITH_CLIP
    return [
        StageSpec(
            name="ingest",
            version=4,
            reads=(),
            writes="records",
            schema=schemas.RECORDS,
            settings=recipe.ingest,
            worker="pipeline.ingest:IngestWorker",
        ),
        FitSpec(
            name="synthesis",
            version=1,
            reads=() if recipe.synthesis.limit is None else ("records",),
            settings=LimitSettings(limit=recipe.synthesis.limit),
            fit="pipeline.synthesis.limit:fit",
        ),
        *([clip] if asks_clip else []),
        StageSpec(
            name="ask",
            version=3,
            reads=("records",),
            writes="answers",
            schema=synthesis_schemas.ANSWERS,
            settings=recipe.synthesis,
            models=("synthesis", "clip") if asks_clip else ("synthesis",),
            worker="pipeline.synthesis.engine:SilentWorker",
            dataflow=_dataflow(recipe),
            resources=resources_of(recipe.synthesis),
        ),
        StageSpec(
            name="synthesize",
            version=5,
            reads=("records", "answers"),
            writes="variants",
            schema=synthesis_schemas.VARIANTS,
            settings=recipe.synthesis,
            worker="pipeline.synthesis.judge:JudgeWorker",
        ),
        *([] if asks_clip else [clip]),
        FitSpec(
            name="vq",
            version=3 if recipe.image_tokenizer.kind == "janus" else 2,
            reads=("records",),
            settings=recipe.image_tokenizer,
            fit=f"tokenizer_cache.vq.{_image_tokenizer(recipe)}:fit",
            resources=FIT,
        ),
        *([_audio(recipe)] if recipe.has_sounds else []),
        StageSpec(
            name="measure",
            version=3,
            reads=("records",),
            writes="pictures",
            schema=schemas.PICTURES,
            settings=MeasureSettings(clip=recipe.score.clip, heads=recipe.score.heads),
            models=("clip",),
            worker="filters.measure:MeasureWorker",
        ),
        FitSpec(
            name="captions",
            version=1,
            reads=("records",),
            settings=Settings(),
            fit="filters.shared_captions:fit",
        ),
        StageSpec(
            name="score",
            version=5,
            reads=("records", "variants", "pictures"),
            writes="scores",
            schema=schemas.SCORES,
            settings=recipe.score,
            models=("clip", "captions"),
            worker="filters.score:ScoreWorker",
        ),
        StageSpec(
            name="refuse",
            version=1,
            reads=("records", "variants", "pictures"),
            writes="refusals",
            schema=schemas.REFUSALS,
            settings=recipe.rights,
            worker="filters.rights:RightsWorker",
        ),
        StageSpec(
            name="tokenize",
            version=3,
            reads=("records",),
            writes="tokens",
            schema=token_schemas.TOKENS,
            settings=recipe.tokenize,
            models=("vq",),
            worker="tokenizer_cache.encode:EncodeWorker",
        ),
        *([_tokenize_audio(recipe)] if recipe.has_sounds else []),
        *([_evaluation(recipe)] if recipe.duplicates.against else []),
        CorpusStepSpec(
            name="deduplicate",
            version=3,
            reads=("records", "pictures", "scores"),
            writes="duplicates",
            settings=recipe.duplicates,
            models=("evaluation",) if recipe.duplicates.against else (),
            function="filters.duplicates.step:find_duplicates",
            resources=FIT,
        ),
        FitSpec(
            name="cuts",
            version=3,
            reads=("records", "variants", "scores", "pictures", "refusals", "duplicates"),
            # A `top` counts what refusals and duplicates leave.
            follows=(
                "scores",
                "pictures",
                *(("refusals", "duplicates") if recipe.select.top else ()),
            ),
            settings=cuts_settings(recipe.select),
            fit="pipeline.selection.fit:fit_cuts",
            is_light=True,
        ),
        StageSpec(
            name="select",
            version=5,
            reads=("records", "variants", "scores", "pictures", "refusals", "duplicates"),
            writes="selection",
            schema=schemas.SELECTION,
            settings=recipe.select,
            models=("cuts",),
            worker="pipeline.selection.worker:SelectWorker",
            is_light=True,
        ),
        FitSpec(
            name="text",
            version=2,
            reads=("records", "variants"),
            settings=recipe.text_tokenizer,
            fit="tokenizer_cache.text:fit",
        ),
        StageSpec(
            name="shards",
            version=7,
            reads=(
                *("selection", "records", "variants", "scores", "tokens"),
                *(["audio_tokens"] if recipe.has_sounds else []),
            ),
            writes="samples",
            schema=token_schemas.SAMPLES,
            settings=recipe.shards,
            models=("text",),
            worker="tokenizer_cache.shards:ShardWorker",
        ),
    ]


def part_extras(spec: StageSpec, recipe: Recipe, corpus: Corpus) -> Extras:
    """What a stage is told about each part beside its tables; empty where there is nothing."""
    common: Mapping[str, Any]
    match spec.name:
        case "ingest":
            sources = {source.name: source.model_dump(mode="json") for source in recipe.sources}
            return {
                part.name: {
                    # Not `asdict`, which copies the slice.
                    "part": {each.name: getattr(part, each.name) for each in fields(part)},
                    "source": sources[part.source],
                    "forgotten": str(corpus.root / FORGOTTEN_FILE),
                    **_places(recipe, part.source, sources[part.source]),
                }
                for part in corpus.parts
            }
        case "ask":
            from pipeline.synthesis.prompts import prompt_fingerprint
            from pipeline.synthesis.weights import model_fingerprint

            common = {
                "prompt": prompt_fingerprint(recipe.synthesis),
                "model": model_fingerprint(recipe.synthesis),
            }
        case "synthesize":
            critics = recipe.synthesis.critics
            common = {
                "critics": critics.model_dump(mode="json") if critics else None,
                "critics_version": CRITICS,
            }
        case "measure":
            common = {"heads": heads_fingerprint(recipe.score.heads)}
        case "refuse":
            common = {"lists": lists_fingerprint(recipe.rights)}
        case "tokenize":
            # Codes of an image are taken from wherever the same tokenizer has left them.
            common = {
                "tokenizer": fingerprint(
                    version=spec.version,
                    settings=spec.settings.model_dump(mode="json"),
                    model=corpus.model_hash("vq"),
                ),
                "corpus": str(corpus.root),
            }
        case "shards":
            ids = vocabulary(recipe, corpus).fingerprint
            settings = recipe.shards.model_dump(mode="json")
            decides = {"vocabulary": ids, "settings": settings, "layout": LAYOUT}
            corpus.shards = corpus.root / "shards" / fingerprint(**decides)
            common = {"folder": str(corpus.shards), "vocabulary": ids}
        case _:
            return {}
    return {part.name: common for part in corpus.parts}


def _evaluation(recipe: Recipe) -> FitSpec:
    """The evaluation sets that the corpus must not hold, read once."""
    is_semantic = recipe.duplicates.semantic is not None
    return FitSpec(
        name="evaluation",
        version=1,
        reads=(),
        models=("clip",) if is_semantic else (),
        settings=EvaluationSettings(
            against=recipe.duplicates.against, clip=recipe.score.clip if is_semantic else None
        ),
        fit="filters.duplicates.evaluation:fit",
    )


def _audio(recipe: Recipe) -> FitSpec:
    """The audio tokenizer, trained or taken from where it was published."""
    module = "train" if recipe.audio_tokenizer.kind == "trained" else "adopt"
    return FitSpec(
        name="audio",
        version=1,
        reads=("records",),
        settings=recipe.audio_tokenizer,
        fit=f"tokenizer_cache.audio.{module}:fit",
        resources=FIT,
    )


def _tokenize_audio(recipe: Recipe) -> StageSpec:
    return StageSpec(
        name="tokenize-audio",
        version=2,
        reads=("records",),
        writes="audio_tokens",
        schema=token_schemas.AUDIO_TOKENS,
        settings=recipe.audio_tokenizer,
        models=("audio",),
        worker="tokenizer_cache.audio.encode:EncodeAudioWorker",
    )


def _dataflow(recipe: Recipe) -> str | None:
    """Who answers the requests; nobody where the recipe asks no LLM."""
    if recipe.synthesis.limit == 0:
        return None
    critics = recipe.synthesis.critics
    return _LLM_WITH_CLIP if critics and critics.max_clip_loss is not None else _LLM


def _image_tokenizer(recipe: Recipe) -> str:
    """The module that trains the image tokenizer, or takes it from where it was published."""
    return "train" if recipe.image_tokenizer.kind == "trained" else "adopt"


def vocabulary_models(recipe: Recipe) -> tuple[str, ...]:
    """The fitted models whose ids make the vocabulary, and so the folder of the shards."""
    return ("text", "vq", "audio") if recipe.has_sounds else ("text", "vq")


def vocabulary(recipe: Recipe, corpus: Corpus) -> Vocabulary:
    """The id space of the corpus's fitted tokenizers."""
    from tokenizer_cache.audio.description import describe_audio
    from tokenizer_cache.code_order import read_in
    from tokenizer_cache.text import describe_text
    from tokenizer_cache.vq.description import describe_vq

    text, vq, *audio = (local_copy(corpus.models[name]) for name in vocabulary_models(recipe))
    image = read_in(recipe.shards.code_order, describe_vq(vq))
    return build_vocabulary(describe_text(text), image, *map(describe_audio, audio))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the sources of a recipe hold.

    Attributes:
        parts: all parts, in the order of the sources.
        unread: for each source that has any, the kinds of files that it does not read.
    """

    parts: list[Part]
    unread: Unread


def list_parts(recipe: Recipe, known: Mapping[str, Part]) -> list[Part]:
    """The parts of all sources, as in `list_sources`."""
    return list_sources(recipe, known).parts


def list_sources(recipe: Recipe, known: Mapping[str, Part]) -> Listing:
    """The parts of all sources, and what lies there besides.

    Args:
        recipe: names the sources.
        known: the parts of the last run, by their `look`.

    Raises:
        UserError: when no source has any.
    """
    parts: list[Part] = []
    unread = {}
    for settings in recipe.sources:
        source = open_source(settings)
        parts += source.parts(recipe.ingest.rows_per_part, known)
        if isinstance(source, ListsFiles) and source.unread:
            unread[settings.name] = dict(source.unread)
    if not parts:
        places = (getattr(source, "path", None) or source.kind for source in recipe.sources)
        message = f"sources: there is nothing to read in {', '.join(map(str, places))}"
        hint = "A corpus needs a record; look at the paths and the kinds."
        raise UserError(message, "\n".join([*describe_unread(unread), hint]))
    return Listing(parts=parts, unread=unread)


def _places(recipe: Recipe, name: str, source: Mapping[str, Any]) -> dict[str, str]:
    """Where a source's images are referenced: a source that has moved has other references."""
    if recipe.ingest.images == "copy":
        return {}
    places = {key: source.get(key) for key in ("path", "image_folder")}
    return {f"{key} of {name}": str(place) for key, place in places.items() if place is not None}
