"""What a recipe says about training: the mix, the model, the optimisation.

The defaults train the demo's model in about 4 minutes on 2 CPU cores. Figures without a source are
ours; each docstring names the measurement.
"""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from pipeline.settings import Settings

Part = Literal["tokens", "places", "blocks", "head"]
"""Parts of the decoder, by the names of its modules."""


class MixSettings(Settings):
    """How much of each stream the model trains on, as a ratio."""

    unit: Literal["tokens", "samples"] = "tokens"
    """What the ratio counts; the log has what was achieved in both."""

    text: float = Field(default=2, ge=0)
    """Share of text without pictures."""

    image: float = Field(default=2, ge=0)
    """Share of a text followed by its picture."""

    mixed: float = Field(default=1, ge=0)
    """Share of interleaved documents, in which each picture is followed by its text."""

    audio: float = Field(default=1, ge=0)
    """Share of a text followed by its sound; of no effect where the corpus has no sounds."""

    @model_validator(mode="after")
    def _has_a_stream(self) -> MixSettings:
        if self.text + self.image + self.mixed + self.audio == 0:
            raise ValueError("at least one of text, image, mixed and audio must be above 0")
        return self


class LossSettings(Settings):
    """What each kind of token counts in the loss; `<eos>` and the like count 1."""

    text: float = Field(default=1, ge=0)
    """Weight of a text's tokens."""

    image: float = Field(default=1, ge=0)
    """Weight of a picture's codes (Emu3, arXiv 2409.18869, takes 0.5)."""

    audio: float = Field(default=1, ge=0)
    """Weight of a sound's codes."""

    condition: float = Field(default=1, ge=0)
    """Further factor for what the image or audio stream gives before its response; 0 trains on
    responses only, as Janus does (arXiv 2410.13848, section 3.2)."""


class _Ratio(Settings):
    @model_validator(mode="after")
    def _has_a_task(self) -> Self:
        names = type(self).model_fields
        if not any(getattr(self, name) for name in names):
            message = f"at least one of {', '.join(names)} must be above 0"
            raise ValueError(message)
        return self


class ImageTaskSettings(_Ratio):
    """How often each task takes a sample of the image stream, as a ratio."""

    text_to_image: float = Field(default=1, ge=0)
    """The picture after its text."""

    image_to_text: float = Field(default=0, ge=0)
    """The text after its picture."""

    negative_to_image: float = Field(default=0, ge=0)
    """The picture after its text and `<negative>` with one that says what the picture does not
    show. A sample for which the LLM wrote none goes to `text_to_image`, also in the next two."""

    style_to_image: float = Field(default=0, ge=0)
    """The picture after its text and `<style>` with one that asks for another manner than it has.
    """

    image_to_image: float = Field(default=0, ge=0)
    """The whole picture after one of its crops (`tokenize.crops`) and its text, and for half of
    them a negative or style text."""

    infill: float = Field(default=0, ge=0)
    """A stretch of the picture's codes after its text and the codes around them."""


class AudioTaskSettings(_Ratio):
    """How often each task takes a sample of the audio stream, as a ratio."""

    text_to_sound: float = Field(default=1, ge=0)
    """The sound after its text."""

    sound_to_text: float = Field(default=0, ge=0)
    """The text after its sound."""


class TaskSettings(Settings):
    """What is learnt from the samples of a stream that can serve several tasks."""

    image: ImageTaskSettings = ImageTaskSettings()
    """Of the image stream."""

    audio: AudioTaskSettings = AudioTaskSettings()
    """Of the audio stream; of no effect where the corpus has no sounds."""


class LoaderSettings(Settings):
    """How samples come from the shards."""

    shuffle_shards: int | None = Field(default=None, ge=1)
    """How many shards of a stream are shuffled together; all by default. On a store this bounds
    what must fit on the machine's disk at a time."""

    num_threads: int = Field(default=2, ge=1)
    """Threads that fill rows ahead of the training."""

    cache_gb: float = Field(default=50, gt=0)
    """How much of the shards of a store is kept on this machine."""

    bad_shards: Literal["fail", "skip"] = "fail"
    """`skip` turns documents whose codes are damaged into padding and counts them."""


class ModelSettings(Settings):
    """The decoder's size. The vocabulary's size and the code grid come from the shards."""

    layers: int = Field(default=4, ge=1)
    """Number of transformer blocks."""

    width: int = Field(default=256, ge=16)
    """Width of the residual stream, a multiple of `heads`."""

    heads: int = Field(default=8, ge=1)
    """Number of attention heads; `width / heads` is even, as RoPE turns pairs."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> ModelSettings:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} must be heads ({self.heads}) times an even head width"
            )
        return self


class StageSettings(Settings):
    """A stretch of a training; what it does not say is as for the whole training."""

    steps: int = Field(ge=1)
    """Optimiser steps of this stage."""

    mix: MixSettings | None = None
    """Ratio of the streams in this stage."""

    tasks: TaskSettings | None = Field(default=None, exclude_if=lambda tasks: tasks is None)
    """How often each task takes a sample in this stage."""

    loss: LossSettings | None = None
    """What each kind of token counts in this stage."""

    freeze: tuple[Part, ...] = ()
    """Parts of the decoder that do not learn: `tokens` and `places` (the embeddings), `blocks`,
    `head`."""

    learning_rate_scale: float = Field(default=1.0, gt=0)
    """Factor of both learning rates, next to the schedule of the whole training."""

    @model_validator(mode="after")
    def _something_learns(self) -> StageSettings:
        if set(self.freeze) >= set(get_args(Part)):
            raise ValueError("freeze names all parts, so that nothing would learn")
        return self


class AlignmentSettings(Settings):
    """Fine-tuning by condition contrastive alignment, after which a model draws without guidance.

    Chen et al., arXiv 2410.09347. Its loss takes the place of the cross-entropy, of the weights in
    `loss` and of `z_loss`.
    """

    beta: float = Field(default=1, gt=0)
    """How steeply the loss falls with a nat by which a picture becomes likelier than in the weights
    that the training begins with. Its minimum draws as guidance of 1 + 1 / beta does, so that 1
    aims at `cfg_scale: 2`. The paper's code takes 0.02, for one epoch at a tenth of the learning
    rate."""

    weight: float = Field(default=1, gt=0)
    """How much pictures after the text of another one count: the paper's lambda. The paper's code
    takes 50 to 1,000. Measured with a run of jobs/recipes/shapes.yaml and a tenth of its learning
    rates: with 0.02 and 1,000 held-out codes cost 1.23 nats after 50 steps, as the model is only
    led away from what it drew; with 1 and 1 they cost 0.50 after 40, as before."""


class TrainSettings(Settings):
    """One training: data, model, optimisation, and when to look at held-out records."""

    mix: MixSettings = MixSettings()
    """Ratio of the streams."""

    tasks: TaskSettings = TaskSettings()
    """How often each task takes a sample."""

    loss: LossSettings = LossSettings()
    """What each kind of token counts."""

    loader: LoaderSettings = LoaderSettings()
    """How samples come from the shards."""

    model: ModelSettings = ModelSettings()
    """Size of the decoder."""

    seed: int = 0
    """Decides the initial weights, the order of the samples and every choice of a caption."""

    seq_len: int = Field(default=256, ge=16)
    """Tokens in a row; documents are packed whole, so it is at least the longest picture's or
    sound's with its text."""

    tokens_per_step: int = Field(default=2048, ge=16)
    """Tokens in one optimiser step, padding included; whole rows of `seq_len`, at least one."""

    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of `seq_len` tokens that go through the model at once; null takes all of a step. The
    gradients of a step's micro-batches are added up, so this decides memory and not the result."""

    compile: Literal["auto", "off"] = "auto"
    """Whether the blocks are compiled by torch: `auto` on CUDA only, where it pays."""

    activation_checkpointing: bool = False
    """Keep only the inputs of the blocks and compute the rest again for the gradient: less memory,
    a third more work, the same result."""

    steps: int = Field(default=450, ge=1)
    """Optimiser steps of the whole run. Measured: a step takes 0.52 s on 2 cores."""

    caption_max_tokens: int = Field(default=48, ge=1)
    """The text of a picture or a sound is cut after that many tokens, so that two pairs fit a row
    of 256. That it ends there is not learnt. Texts of interleaved documents are not cut by this."""

    code_corruption: float = Field(default=0.0, ge=0, lt=1)
    """Largest share of a row's codes of pictures that random ones replace where the model reads
    them, in training alone; each row's share is uniform from 0. Against reciting pictures from
    their first codes, where few pictures are seen often."""

    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of image and audio documents whose text is emptied, so that the model also learns these
    without a condition (Ho and Salimans, Classifier-Free Diffusion Guidance, arXiv 2207.12598;
    Janus-Pro drops 10 % as well)."""

    matrix_learning_rate: float = Field(default=0.02, gt=0)
    """Peak step of Muon for the blocks' matrices, as a share of an orthogonal matrix (Jordan,
    Muon, 2024). After 100 steps on OpenMoji, held-out codes cost 1.96 nats, with AdamW for all
    2.45, at 1.23 times the time a step."""

    learning_rate: float = Field(default=0.004, gt=0)
    """Peak learning rate of AdamW for embeddings and the output head."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay of the blocks' matrices."""

    schedule: Literal["wsd", "cosine"] = "wsd"
    """How the learning rate goes after its rise. `wsd` stays at the peak and falls in a straight
    line at the end (`warmdown`), so that a run can be made longer from before its fall. `cosine`
    falls at once, as half a cosine over all the steps that are left."""

    min_learning_rate: float = Field(default=0.0, ge=0, lt=1)
    """Where the learning rate ends, as a share of its peak (Chinchilla, arXiv 2203.15556, 0.1)."""

    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps in which the learning rate rises from 0."""

    warmdown: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps in which `wsd` falls at the end."""

    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient."""

    z_loss: float = Field(default=1e-5, ge=0)
    """Weight of the squared log-normaliser in the loss (Chameleon, arXiv 2405.09818, 2.2)."""

    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """How slowly the moving average of the weights follows them. The average is what is evaluated
    on held-out rows, sampled and exported; 0 takes the weights themselves."""

    evaluate_every_steps: int = Field(default=100, ge=1)
    """Steps between two looks at held-out rows; the last step of each stage always has one."""

    evaluate_rows: int = Field(default=32, ge=1)
    """How many held-out rows each stream gives for those looks; they are always the same."""

    checkpoint_every_steps: int = Field(default=200, ge=1)
    """Steps between two checkpoints. The last step always has one, as have the last before the
    learning rate falls and each look at held-out rows that is the best so far."""

    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the newest checkpoints are kept, besides the best one by held-out loss and the
    last one before the learning rate falls."""

    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the figures of `metrics.jsonl`, which is always written, are shown as well:
    `tensorboard` writes event files into RUN/tensorboard, `wandb` a run of Weights & Biases, in the
    project that WANDB_PROJECT names. Each wants `pip install 'anymix[NAME]'`."""

    stages: tuple[StageSettings, ...] = ()
    """Stretches with settings of their own, in their order; their steps add up to `steps`. Janus
    trains in three such stages (arXiv 2410.13848, section 3.3; `jobs/recipes/janus-stages.yaml`).
    Each reads its samples in an order of its own."""

    def learns(self, task: str) -> bool:
        """Whether a task of the image stream is learnt in any stage."""
        each = [stage.tasks or self.tasks for stage in self.stages] or [self.tasks]
        return any(getattr(tasks.image, task) for tasks in each)

    alignment: AlignmentSettings | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Align the weights of another run (`anymix train --init`) in place of training on. Only
    pictures after their texts can be: `mix` and `tasks.image` must ask for nothing else."""

    @property
    def rows_per_step(self) -> int:
        """Rows of `seq_len` tokens in one optimiser step."""
        return max(1, self.tokens_per_step // self.seq_len)

    @model_validator(mode="before")
    @classmethod
    def _read_rows_per_step(cls, given: Any) -> Any:  # noqa: ANN401 - unchecked input
        """Corpora keep the recipe that filled them; until December 2026 it said `rows_per_step`."""
        if isinstance(given, dict) and "rows_per_step" in given:
            rest = {key: value for key, value in given.items() if key != "rows_per_step"}
            seq_len = given.get("seq_len", cls.model_fields["seq_len"].default)
            return {"tokens_per_step": given["rows_per_step"] * seq_len, **rest}
        return given

    @model_validator(mode="before")
    @classmethod
    def _read_image_to_text(cls, given: Any) -> Any:  # noqa: ANN401 - unchecked input
        """Until December 2026 there were two tasks, and `image_to_text` was the second's share."""
        if isinstance(given, dict) and "image_to_text" in given:
            rest = {key: value for key, value in given.items() if key != "image_to_text"}
            share = given["image_to_text"]
            tasks = {
                "image": {"text_to_image": 1 - share, "image_to_text": share},
                "audio": {"text_to_sound": 1 - share, "sound_to_text": share},
            }
            return {"tasks": tasks, **rest}
        return given

    @model_validator(mode="after")
    def _ramps_fit(self) -> TrainSettings:
        if self.warmup + self.warmdown > 1:
            raise ValueError("warmup and warmdown together must not pass 1")
        return self

    @model_validator(mode="after")
    def _alignment_has_pairs(self) -> TrainSettings:
        if self.alignment is None:
            return self
        mixes = [self.mix, *(stage.mix for stage in self.stages if stage.mix is not None)]
        others = {"text", "mixed", "audio"}
        every = [self.tasks, *(stage.tasks for stage in self.stages if stage.tasks is not None)]
        tasks = [name for name in ImageTaskSettings.model_fields if name != "text_to_image"]
        wrong = [f"mix.{name}" for name in sorted(others) if any(getattr(m, name) for m in mixes)]
        wrong += [
            f"tasks.image.{name}" for name in tasks if any(getattr(e.image, name) for e in every)
        ]
        wrong += ["code_corruption"] if self.code_corruption else []
        if wrong:
            raise ValueError(f"with alignment {' and '.join(wrong)} must be 0")
        if self.rows_per_step < 2:
            raise ValueError("with alignment a step has two rows or more: tokens_per_step")
        return self

    @model_validator(mode="after")
    def _stages_fill_the_steps(self) -> TrainSettings:
        total = sum(stage.steps for stage in self.stages)
        if self.stages and total != self.steps:
            raise ValueError(
                f"the steps of the stages add up to {total}, and steps is {self.steps}"
            )
        return self
