import pytest

from pipeline.synthesis.backends.errors import REASONS, classify, describe


@pytest.mark.parametrize("reason", REASONS)
def test_code_that_a_backend_has_named_comes_back(reason) -> None:
    assert classify(describe(reason, "503: overloaded")) == (reason, "503: overloaded")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "VLLMValidationError: The decoder prompt (length 2010) is longer than the maximum "
            "model length of 640. Make sure that `max_model_len` is no smaller",
            "synthesis-prompt-too-long",
        ),
        (
            "ValueError: This model's maximum context length is 640 tokens.",
            "synthesis-prompt-too-long",
        ),
        ("400: the request exceeds the available context size", "synthesis-prompt-too-long"),
        ("400: 'code': 'context_length_exceeded'", "synthesis-prompt-too-long"),
        ("`inputs` tokens + `max_new_tokens` must be <= 2048", "synthesis-prompt-too-long"),
        ("Invalid 'messages[3].content': string too long.", "synthesis-prompt-too-long"),
        ("400: content_policy_violation", "synthesis-refused"),
        ("litellm.ContentPolicyViolationError: no", "synthesis-refused"),
        ("Input data may contain inappropriate content.", "synthesis-refused"),
        ("Content Exists Risk", "synthesis-refused"),
        ("The request was rejected because it was considered high risk", "synthesis-refused"),
        ("Content violates usage guidelines.", "synthesis-refused"),
        ("ValueError: The grammar could not be compiled", "synthesis-engine-error"),
    ],
)
def test_words_of_vllm_and_of_servers_are_told_apart(said, reason) -> None:
    assert classify(said) == (reason, said)
