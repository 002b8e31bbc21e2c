import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.budget import (
    Budget,
    estimate_tokens,
    most_billed,
    most_written,
    spent_tokens,
    written_tokens,
)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 2000),
    batches=st.lists(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 1)), max_size=8)),
    in_flight=st.integers(1, 4),
)
def test_budget_is_never_overspent_and_nothing_waits_for_ever(limit, batches, in_flight) -> None:
    spent = 0

    async def send(budget: Budget, number: int, batch: list[tuple[int, float]]) -> None:
        nonlocal spent
        requests = [(f"{number} {row}", most) for row, (most, _) in enumerate(batch)]
        granted = await budget.reserve(requests)
        await asyncio.sleep(0)  # others run in between
        used = {
            key: int(most * share) for (key, most), (_, share) in zip(requests, batch, strict=True)
        }
        spent += sum(used[key] for key in granted)
        await budget.settle([(key, used[key]) for key in granted])

    async def run() -> None:
        budget = Budget(limit)
        queue = list(enumerate(batches))
        while queue:
            together, queue = queue[:in_flight], queue[in_flight:]
            sent = [send(budget, number, batch) for number, batch in together]
            await asyncio.wait_for(asyncio.gather(*sent), timeout=10)
        assert await budget.free() == limit - spent

    asyncio.run(run())
    assert spent <= limit


def test_request_waits_until_others_have_given_back_what_they_did_not_use() -> None:
    async def run() -> list[set[str]]:
        budget = Budget(100)
        first = await budget.reserve([("a", 80)])
        waiting = asyncio.create_task(budget.reserve([("b", 80)]))
        await asyncio.sleep(0)
        assert not waiting.done()
        await budget.settle([("a", 15)])
        return [first, await waiting, await budget.reserve([("b", 80)])]

    assert asyncio.run(run()) == [{"a"}, {"b"}, {"b"}]  # the last came twice


def test_what_fits_no_more_is_refused_when_nothing_is_in_flight() -> None:
    async def run() -> set[str]:
        return await Budget(100).reserve([("a", 60), ("b", 60), ("c", 30)])

    assert asyncio.run(run()) == {"a", "c"}


def test_cost_is_what_the_server_bills_else_what_is_written_here_and_never_unknown() -> None:
    text = "A picture of an apple."
    assert spent_tokens({"num_billed_tokens": 130, "num_generated_tokens": 30}) == 130
    assert spent_tokens({"num_billed_tokens": 0}) == 0
    assert spent_tokens({"num_generated_tokens": 30}) == 30
    assert spent_tokens({"num_generated_tokens": None, "generated_text": text}) == 6
    assert written_tokens({"num_billed_tokens": 130, "num_generated_tokens": 30}) == 30
    assert spent_tokens({"generated_text": None}) == 0


@given(st.text(min_size=1))
def test_no_text_is_estimated_to_cost_nothing(text: str) -> None:
    assert estimate_tokens(text) >= len(text) / 4


def test_server_reserves_the_prompt_as_well() -> None:
    messages = [{"role": "user", "content": "x" * 400}]
    row = {"messages": messages, "sampling_params": {"max_tokens": 160}, "pictures": [b"png"]}
    assert most_written(row) == 160
    assert most_billed(row) == 160 + 100 + 1000


def test_tries_that_cost_more_than_was_reserved_use_up_what_others_wait_for() -> None:
    async def run() -> set[str]:
        budget = Budget(100)
        await budget.reserve([("a", 60)])
        await budget.settle([("a", 140)])
        return await budget.reserve([("b", 10)])

    assert asyncio.run(run()) == set()
