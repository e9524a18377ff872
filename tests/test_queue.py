"""The queue between fetching and landing is bounded, and forgets nobody who waits."""

import anyio

from etl.run.queue import ByteBudget


async def test_everybody_who_waits_for_room_gets_it():
    budget = ByteBudget(limit=10)
    await budget.take(10)
    passed: list[int] = []

    async def take(number: int) -> None:
        await budget.take(10)
        passed.append(number)
        budget.give_back(10)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
            assert passed == []
            budget.give_back(10)
    assert sorted(passed) == list(range(5))


async def test_an_item_larger_than_the_whole_budget_still_passes():
    budget = ByteBudget(limit=10)
    with anyio.fail_after(5):
        await budget.take(1_000)
