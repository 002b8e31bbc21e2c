"""What is asked of a server, and what its refusals teach."""

import pytest

from pipeline.engine.fingerprint import fingerprint
from pipeline.synthesis.backends.dialect import learn, request_body
from pipeline.synthesis.backends.settings import EndpointSettings
from pipeline.synthesis.prompts import prompt_fingerprint
from pipeline.synthesis.settings import SynthesisSettings
from pipeline.synthesis.weights import model_fingerprint
from tests.pipeline.synthesis.backends.asking import request


def endpoint(**settings) -> EndpointSettings:
    return EndpointSettings(base_url="http://host/v1", **settings)


LESSONS = [
    ("This response_format type is unavailable now", {"response_format": "json_object"}),
    (
        "Failed to deserialize the JSON body into the target type: response_format: "
        "response_format.type `json_schema` is unavailable now at line 1 column 12440",
        {"response_format": "json_object"},
    ),
    ("Unknown parameter: response_format", {"response_format": "json_object"}),
    ("invalid JSON schema in format", {"schema_bounds": False}),
    ("Failed to initialize samplers: failed to parse grammar", {"schema_bounds": False}),
    (
        "JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
        {"schema_bounds": False},
    ),
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        {"max_tokens_parameter": "max_completion_tokens"},
    ),
    ("invalid temperature: only 1 is allowed for this model", {"drop_params": ("temperature",)}),
    (
        "`temperature` and `top_p` cannot both be specified for this model; extra inputs are not "
        "permitted",
        {"drop_params": ("top_p",)},
    ),
    ("Unrecognized request argument supplied: seed", {"drop_params": ("seed",)}),
    ("System role not supported", {"system_role": False}),
    ("Developer instruction is not enabled for models/gemma-3-27b-it", {"system_role": False}),
    (
        "Conversation roles must alternate user/assistant/user/assistant/...",
        {"system_role": False},
    ),
    (
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"],
                     "msg": "Extra inputs are not permitted", "input": "max_tokens"}]},
        {"drop_params": ("seed",)},
    ),
    (
        {"message": "Provider returned error", "metadata": {"raw": '{"error": "json_schema is not '
                                                                   'supported by this model"}'}},
        {"response_format": "json_object"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("said", "change"), LESSONS)
def test_refusal_teaches_what_it_names(said, change) -> None:
    assert learn(endpoint(), said) == change


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5000 tokens.",
        "'max_tokens' or 'max_completion_tokens' is too large: 160. This model's maximum context "
        "length is 128 tokens",
        "max_tokens is too large: 20000. This model supports at most 16384 completion tokens",
        "temperature must be at most 2",
        "The response was filtered by the content management policy.",
        "internal error",
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
        "<html itemtype='http://schema.org/WebPage'>an unknown error: seed</html>",
        {"message": "Failed to generate JSON", "failed_generation": "an unknown seed"},
        "",
        None,
    ],
)
def test_error_of_the_request_itself_teaches_nothing(said) -> None:
    assert learn(endpoint(), said) == {}


def test_lessons_come_to_an_end() -> None:
    server, said = endpoint(), "response_format: 'pattern' is not supported, nor is any json schema"
    steps = []
    while change := learn(server, said):
        steps.append(change)
        server = server.model_copy(update=change)
    assert steps == [
        {"schema_bounds": False}, {"response_format": "json_object"}, {"response_format": "none"},
    ]  # fmt: skip


def test_request_is_openais_own_unless_the_recipe_says_otherwise() -> None:
    row = request()
    body = request_body(endpoint(), row)
    assert body["messages"] == row["messages"]
    assert {name: body[name] for name in ("temperature", "top_p", "max_tokens", "seed")} == {
        "temperature": 0.3, "top_p": 1.0, "max_tokens": 64, "seed": 7,
    }  # fmt: skip
    assert "pattern" in body["response_format"]["json_schema"]["schema"]["properties"]["tags"]


def test_every_setting_changes_what_it_names_and_nothing_else() -> None:
    plain = request_body(endpoint(), request())
    bare = request_body(endpoint(schema_bounds=False), request())
    schema = bare["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"tags": {"type": "string"}, "sentence": {"type": "string"}}
    assert schema["required"] == ["tags", "sentence"]
    body = request_body(endpoint(max_tokens_parameter="max_completion_tokens"), request())
    assert (body.pop("max_completion_tokens"), "max_tokens" in body) == (64, False)
    body = request_body(endpoint(drop_params=["temperature", "seed"]), request())
    assert set(plain) - set(body) == {"temperature", "seed"}


@pytest.mark.parametrize("response_format", ["json_object", "none"])
def test_schema_is_in_the_prompt_where_the_server_takes_none(response_format) -> None:
    body = request_body(endpoint(response_format=response_format), request())
    first, *others = body["messages"]
    assert first["content"].startswith("You write captions.\nAnswer with one JSON object")
    assert '"required":["tags","sentence"]' in first["content"]
    assert others == request()["messages"][1:]
    assert body.get("response_format") == (
        {"type": "json_object"} if response_format == "json_object" else None
    )


def test_system_message_becomes_the_start_of_the_users() -> None:
    body = request_body(endpoint(system_role=False), request())
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == 'You write captions.\n\n{"text":"pear"}'


def test_how_a_server_is_asked_is_no_part_of_the_fingerprint() -> None:
    plain = SynthesisSettings(backend="openai", endpoint=endpoint())
    told = endpoint(response_format="none", drop_params=["seed"], system_role=False)
    assert plain.model_dump(mode="json") == SynthesisSettings(
        backend="openai", endpoint=told
    ).model_dump(mode="json")


def test_corpora_of_before_are_taken_over_without_asking_again() -> None:
    settings = SynthesisSettings(backend="openai", model="served", endpoint=endpoint())
    decides = {
        "settings": settings.model_dump(mode="json"),
        "prompt": prompt_fingerprint(settings),
        "model": model_fingerprint(settings),
    }
    # Made by the same lines of commit 983332f: what the stage `ask` is named by in a corpus.
    assert fingerprint(**decides) == "fc5b101635c28780"
