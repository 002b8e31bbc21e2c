"""What a recipe may say about the critics."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings import Settings


class CriticSettings(Settings):
    """From where on a text is good enough: every critic's score is stored, these are applied."""

    language: str = Field(default="en", pattern=r"^[a-z]{2,3}$")
    """Language of the corpus, ISO 639-1: that of a record in Latin letters, too short to tell.
    Grounding knows English words; with another language it looks at digits alone."""

    min_language_certainty: float = Field(default=0.9, ge=0, le=1)
    """Probability from which on a language is believed; below it only the script counts, as for
    most texts of a few words. Default: ours; of 844 texts of the embedded model, all of them
    English or gibberish, none is taken for another language."""

    min_script_share: float = Field(default=0.8, ge=0, le=1)
    """Share of a text's letters that are of the record's scripts, at least."""

    min_freshness: float = Field(default=0.75, ge=0, le=1)
    """Share of the words and of the pairs of words that do not repeat others of the same text, at
    least; what the record itself repeats is free."""

    min_grounding: float = Field(default=0.5, ge=0, le=1)
    """How likely it has to be that everything a caption states is in the record. At 0.5 a colour, a
    number, a name or a thing of its own fails a text, as do two doings or qualities, and so do true
    synonyms that the lists do not know. Default: ours, for a small LLM that makes things up. Of 165
    good texts in a person's own words 0.5 fails 43 %, 0.3 only 23 %, but 0.3 lets a seventh of the
    wrong objects pass (`tests/benchmarks/critics.py`)."""

    min_contrast: float = Field(default=0.5, ge=0, le=1)
    """How likely it has to be that every thing a negative names is not what the record states."""

    min_novelty: float = Field(default=0.08, ge=0, le=1)
    """How far a text has to be from the record's captions and its other texts: 1 minus the
    similarity of their characters, words in order of the alphabet, articles left out."""

    min_fidelity: float = Field(default=0.3, ge=0, le=1)
    """How much of what the record states a text has to say, or how much of what it says has to be
    stated: the larger of the two shares."""

    max_clip_loss: float | None = Field(default=None, ge=0, le=2)
    """How much lower than the record's own caption a caption may score with the picture, in cosine
    of the corpus's CLIP model; null leaves CLIP to `select`. The LLM then waits until that model is
    fitted, and a model that is fitted anew has it write anew."""

    judge: bool = False
    """Whether the LLM judges what the others took, by a rubric. Default: ours; the embedded model's
    marks say nothing, and each round of judging costs as much as a round of writing."""

    min_judgement: float = Field(default=0.5, ge=0, le=1)
    """The worst of the marks that the LLM as a judge gives, 1 to 5 as 0 to 1, at least."""
