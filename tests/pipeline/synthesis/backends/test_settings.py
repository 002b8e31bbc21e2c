import pytest
import yaml

from jobs.recipe import Recipe, dump_recipe, load_recipe
from jobs.stages import steps
from pipeline.errors import UserError

HEAD = "name: a\nsources:\n  - kind: shapes\nsynthesis:\n"
ENDPOINT = "  backend: openai\n  endpoint:\n    base_url: https://host/v1\n"


def message_of(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    return error.value.message


def recipe_of(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + text)
    return load_recipe(path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (ENDPOINT + "  device: gpu\n",
         [":8: synthesis.device", "no effect with backend: openai", "only with backend: vllm"]),
        (ENDPOINT + "  engine: {max_lora_rank: 8}\n", [":8: synthesis.engine"]),
        ("  endpoint: {base_url: https://host/v1}\n",
         [":5: synthesis.endpoint", "no effect with backend: vllm", "only with backend: openai"]),
        ("  replay: answers\n", [":5: synthesis.replay", "only with backend: replay"]),
        ("  backend: openai\n", [":4: synthesis", "needs endpoint: {base_url: …}"]),
        ("  backend: replay\n", [":4: synthesis", "needs replay: PATH"]),
        ("  backend: llama\n", [":5: synthesis.backend", "'vllm', 'openai' or 'replay'"]),
        ("  backend: openai\n  endpoint: {base_url: host/v1}\n",
         [":6: synthesis.endpoint.base_url", "https://HOST/v1"]),
        (ENDPOINT + "    requests_per_minute: 0\n", [":8: synthesis.endpoint.requests_per_minute"]),
    ],
)  # fmt: skip
def test_setting_that_does_not_fit_the_backend_is_named_with_its_line(tmp_path, text, parts):
    message = message_of(tmp_path, text)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "text",
    [
        ENDPOINT + "    api_key_env: sk-secret\n",
        ENDPOINT + "    api_key: sk-secret\n",
        "  backend: openai\n  endpoint: {base_url: 'https://user:sk-secret@host/v1'}\n",
        "  backend: openai\n  endpoint: {base_url: 'https://host/v1?key=sk-secret'}\n",
    ],
)
def test_key_in_a_recipe_is_refused_without_being_shown(tmp_path, text):
    assert "sk-secret" not in message_of(tmp_path, text)


def test_setting_at_its_default_needs_no_effect(tmp_path):
    recipe = recipe_of(tmp_path, ENDPOINT + "  device: cpu\n")
    assert Recipe.model_validate(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_backend_and_its_settings_do_not_decide_the_texts(tmp_path):
    served = recipe_of(tmp_path, ENDPOINT + "  model: some/model\n").synthesis
    here = recipe_of(tmp_path, "  model: some/model\n").synthesis
    assert served.model_dump(mode="json") == here.model_dump(mode="json")


def test_endpoint_reserves_no_engine(tmp_path):
    (ask,) = [step for step in steps(recipe_of(tmp_path, ENDPOINT)) if step.name == "ask"]
    assert (ask.resources.num_gpus, ask.resources.num_cpus) == (0, 2)
