"""Waiting for room: nobody is passed over, no turn is lost."""

import asyncio
import math

import pytest

from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.turns import Turns


class Queue:
    """Has room for so many of each model."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[object] = []
        self.turns = Turns()
        self.is_draining = False

    def admit(self, who: object) -> object:
        if self.is_draining:
            raise RefusalError(Reason.DRAINING, "over")
        if not self.room:
            raise RefusalError(Reason.QUEUE_FULL, "full")
        self.room -= 1
        self.taken.append(who)
        return who

    def take(self, who: object, wait_s: float = math.inf, model: str = "m") -> asyncio.Future:
        return asyncio.ensure_future(
            self.turns.take(model, wait_s, lambda: self.admit(who), lambda: True)
        )

    def leave(self, number: int = 1) -> None:
        self.room += number
        self.turns.next_of_all()


async def rest() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_first_come_first_served_and_one_place_that_is_free_wakes_as_many_as_fit() -> None:
    queue = Queue(1)
    calls = [queue.take(number) for number in range(6)]
    await rest()
    assert queue.taken == [0]
    queue.leave()
    await rest()
    assert queue.taken == [0, 1]
    queue.leave(3)
    await rest()
    assert queue.taken == [0, 1, 2, 3, 4]
    queue.leave()
    assert await asyncio.gather(*calls) == list(range(6))


async def test_who_goes_gives_the_turn_on() -> None:
    queue = Queue(0)
    first, second = queue.take(1), queue.take(2)
    await rest()
    queue.room += 1
    queue.turns.next_of_all()
    first.cancel()  # its turn had been given
    await rest()
    assert queue.taken == [2]
    assert await second == 2


async def test_a_deadline_is_kept() -> None:
    queue = Queue(0)
    with pytest.raises(RefusalError) as caught:
        await queue.take(1, wait_s=0.01)
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    queue.leave()
    assert await queue.take(2) == 2


async def test_other_refusals_reach_all_who_wait() -> None:
    queue = Queue(0)
    calls = [queue.take(number) for number in range(4)]
    await rest()
    queue.is_draining = True
    queue.turns.next_of_all()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [outcome.reason for outcome in outcomes] == 4 * [Reason.DRAINING]


async def test_a_full_queue_refuses_when_no_room_is_to_come() -> None:
    queue = Queue(0)
    with pytest.raises(RefusalError) as caught:
        await queue.turns.take("m", math.inf, lambda: queue.admit(1), lambda: False)
    assert caught.value.reason is Reason.QUEUE_FULL
