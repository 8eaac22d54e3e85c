"""Families as the scheduler serves them: who is admitted, what they get, and who goes first."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootserve.server.core.decisions import Batch, Declined
from rootserve.server.core.family import Family, Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler

MEMBERS = (Member("quick", 0.80), Member("middle", 0.85), Member("slow", 0.90))
ROW_S = {"quick": 0.001, "middle": 0.002, "slow": 0.004}
START_S = 0.001


def scheduler(
    workers: int = 1,
    members: tuple[Member, ...] = MEMBERS,
    last_takes: float = 1.0,
    **limits: object,
) -> Scheduler:
    """Workers that take exactly as long as they are expected to.

    One batch in sixteen of those measured, the last of them, took so many times as long as the others.
    """
    table = LatencyTable(hand_over_s=0.0)
    for variant, row_s in ROW_S.items():
        for rows in (1, 2, 4, 8):
            for times in [1.0] * 15 + [last_takes]:
                table.learn(variant, rows, times * (START_S + rows * row_s), "processor")
    given = {"max_batch_rows": 8, "lead_s": None, "batches_ahead": 0, **limits}
    made = Scheduler(Limits(**given), table=table)  # type: ignore[arg-type]
    for worker in range(workers):
        made.worker_ready(f"w{worker}", ROW_S, "processor")
    made.family_served("family", members)
    return made


def request(number: int, at: float = 0.0, slack: float = math.inf, **others: object) -> Request:
    return Request(number, "family", 1, at, at + slack, **others)  # type: ignore[arg-type]


def only(s: Scheduler, now: float) -> Batch:
    (batch,) = s.poll(now).dispatches
    return batch


def test_one_with_time_gets_the_most_accurate_variant() -> None:
    s = scheduler()
    assert s.offer(request(1, slack=0.1), 0.0).declined is None
    batch = only(s, 0.0)
    assert (batch.model, batch.worker) == ("slow", "w0")
    assert batch.predicted_s == pytest.approx(0.005)
    assert batch.requests[0].model == "family"


def test_one_without_time_gets_a_faster_one() -> None:
    s = scheduler()
    s.offer(request(1, slack=0.0031), 0.0)
    assert only(s, 0.0).model == "middle"


def test_promises_are_made_with_more_caution_while_time_is_dear() -> None:
    def nearest_tenth_ms(refused: int) -> int:
        """The nearest deadline that is promised at 2 s, after so many that nobody could keep."""
        for tenths in range(1, 100):
            s = scheduler(last_takes=2.0)
            s.offer(request(1, slack=1.0), 0.0)
            s.batch_done("w0", only(s, 0.0).id, 0.005, None)
            for number in range(refused):
                s.offer(request(100 + number, at=2.0, slack=1e-6), 2.0)
            if s.offer(request(2, at=2.0, slack=tenths * 1e-4), 2.0).declined is None:
                return tenths
        raise AssertionError("none is promised")

    # 50 are far from an overload that lasts.
    assert nearest_tenth_ms(0) < nearest_tenth_ms(50)


def test_what_is_due_first_goes_first() -> None:
    s = scheduler()
    s.offer(request(0, slack=1.0), 0.0)
    running = only(s, 0.0)
    for number, slack in enumerate((0.3, 0.1, 0.2), start=1):
        s.offer(request(number, slack=slack), 0.0)
    s.batch_done("w0", running.id, 0.005, None)
    assert [each.id for each in only(s, 0.005).requests] == [2, 3, 1]


def test_a_floor_and_a_set_are_kept_whatever_the_time() -> None:
    s = scheduler(workers=2)
    s.offer(request(1, slack=0.006, floor=0.9), 0.0)
    s.offer(request(2, slack=1.0, allowed=frozenset({"quick"})), 0.0)
    models = {batch.requests[0].id: batch.model for batch in s.poll(0.0).dispatches}
    assert models == {1: "slow", 2: "quick"}


def test_what_no_variant_may_compute_is_declined() -> None:
    s = scheduler()
    assert s.offer(request(1, floor=0.95), 0.0).declined is Declined.UNSERVED
    unknown = frozenset({"another"})
    assert s.offer(request(2, allowed=unknown), 0.0).declined is Declined.UNSERVED


def test_what_cannot_be_promised_is_declined_with_what_could_be() -> None:
    s = scheduler()
    s.offer(request(0, slack=1.0, floor=0.9), 0.0)
    only(s, 0.0)  # until 0.005
    offered = s.offer(request(1, slack=0.006, floor=0.9), 0.0)
    assert offered.declined is Declined.INFEASIBLE
    assert not offered.poll
    told = offered.infeasible
    assert told is not None
    # After the running batch, and alone: 0.005 with the most accurate variant, 0.002 with the quickest.
    assert told.earliest_s == pytest.approx(0.010)
    assert told.floor is None
    assert told.retry_s == pytest.approx(0.004)
    offered = s.offer(request(2, slack=0.0085, floor=0.9), 0.0)
    assert offered.infeasible is not None
    assert offered.infeasible.floor == pytest.approx(0.85)
    assert s.offer(request(3, slack=0.0085, floor=0.85), 0.0).declined is None


def test_the_earliest_time_that_is_told_can_be_promised() -> None:
    s = scheduler()
    rng = random.Random(1)
    for number in range(200):
        offered = s.offer(request(number, slack=rng.uniform(0.01, 0.08)), 0.0)
        if offered.infeasible is not None:
            earliest_s = offered.infeasible.earliest_s
            again = s.offer(request(1000 + number, slack=earliest_s + 1e-6), 0.0)
            assert again.declined is None
            return
    raise AssertionError("none was refused")


def test_without_admission_what_is_late_expires_and_the_rest_is_computed() -> None:
    s = scheduler(admission=False)
    for number in range(40):
        assert s.offer(request(number, slack=0.02), 0.0).declined is None
    batch = only(s, 0.0)
    assert batch.model == "quick"
    assert batch.rows == 8
    s.batch_done("w0", batch.id, 0.009, None)
    batch = only(s, 0.009)
    assert batch.rows == 8
    assert len(s.poll(0.0201).expired) == 24


def test_a_promise_goes_before_an_older_request_for_a_single_variant() -> None:
    s = scheduler()
    s.offer(Request(0, "slow", 8, 0.0), 0.0)
    running = only(s, 0.0)  # until 0.033
    s.offer(Request(1, "slow", 8, 0.0), 0.0)
    s.offer(request(2, at=0.001, slack=0.05), 0.001)
    s.batch_done("w0", running.id, 0.033, None)
    first = only(s, 0.033)
    assert first.requests[0].id == 2
    s.batch_done("w0", first.id, 0.034, None)
    assert only(s, 0.034).requests[0].id == 1


def test_an_older_request_for_a_single_variant_goes_first_if_the_promise_can_wait() -> None:
    s = scheduler()
    s.offer(Request(0, "slow", 8, 0.0), 0.0)
    running = only(s, 0.0)
    s.offer(Request(1, "slow", 8, 0.0), 0.0)
    s.offer(request(2, at=0.001, slack=1.0), 0.001)
    s.batch_done("w0", running.id, 0.033, None)
    assert only(s, 0.033).requests[0].id == 1


@pytest.mark.parametrize(
    "patient",
    [
        Request(10_000, "family", 1, 0.0),
        Request(10_000, "family", 1, 0.0, priority=3),
        Request(10_000, "family", 1, 0.0, floor=0.9, caller="another"),
        Request(10_000, "slow", 8, 0.0),
        Request(10_000, "family", 1, 0.0, 20.0),
    ],
)
def test_nobody_starves_beside_deadlines_that_never_end(patient: Request) -> None:
    """A flood of twice what the fastest variant can do, each request with 50 ms."""
    s = scheduler(patience_s=0.5)
    now, number, ends, waits = 0.0, 0, math.inf, True
    running: Batch | None = None
    s.offer(patient, now)
    while waits and now < 5.0:
        batches = s.poll(now).dispatches
        for running in batches:
            waits = waits and patient.id not in [each.id for each in running.requests]
            ends = now + (running.predicted_s or 0.0)
        now += 0.0005
        number += 1
        s.offer(request(number, now, 0.05), now)
        if running is not None and ends <= now:
            s.batch_done("w0", running.id, now, None)
            running, ends = None, math.inf
    # Its patience, what had been promised by then, and what is computed at that time.
    assert now < patient.priority * 0.5 + 0.2


def test_a_greedy_caller_leaves_the_others_their_share() -> None:
    """One caller asks for three times what there is, and another for a fifth of it."""
    s = scheduler()
    rng = random.Random(3)
    capacity = 8 / (START_S + 8 * ROW_S["quick"])
    now, number, ends = 0.0, 0, math.inf
    running: Batch | None = None
    coming = {"greedy": 3.0 * capacity, "modest": 0.2 * capacity}
    next_s = {caller: rng.expovariate(rate) for caller, rate in coming.items()}
    taken = dict.fromkeys(coming, 0)
    came = dict.fromkeys(coming, 0)
    while now < 4.0:
        now = min(*next_s.values(), ends)
        if now == ends and running is not None:
            s.batch_done("w0", running.id, now, None)
            running, ends = None, math.inf
        else:
            caller = min(next_s, key=lambda one: next_s[one])
            next_s[caller] = now + rng.expovariate(coming[caller])
            number += 1
            offered = s.offer(request(number, now, 0.08, caller=caller), now)
            if now > 1.5:
                came[caller] += 1
                taken[caller] += offered.declined is None
        for running in s.poll(now).dispatches:
            ends = now + (running.predicted_s or 0.0)
    assert taken["modest"] > 0.95 * came["modest"]
    # All that the modest one leaves is used.
    assert taken["greedy"] + taken["modest"] > 0.93 * 2.5 * capacity


def test_a_caller_that_floods_without_deadlines_does_not_keep_others_waiting() -> None:
    s = scheduler(max_queue_rows=64)
    for number in range(200):
        s.offer(request(number, caller="flood"), 0.0)
    assert s.offer(request(1000, 0.01, caller="another"), 0.01).declined is None
    now, order = 0.01, list[int]()
    while batches := s.poll(now).dispatches:
        order.extend(each.id for each in batches[0].requests)
        now += batches[0].predicted_s or 0.0
        s.batch_done("w0", batches[0].id, now, None)
    assert order.index(1000) < 20


def test_what_was_chosen_from_is_told_on_request() -> None:
    s = scheduler(explain=True)
    for number in range(8):
        s.offer(request(number, slack=0.02), 0.0)
    choice = only(s, 0.0).choice
    assert choice is not None
    assert choice.waiting == 8
    assert choice.slack_s == pytest.approx(0.02)
    verdicts = {candidate.variant: candidate.verdict for candidate in choice.candidates}
    assert list(verdicts.values()).count("chosen") == 1
    assert verdicts.keys() == {"slow", "middle", "quick"}


def test_a_more_accurate_variant_that_was_not_taken_is_told_with_why() -> None:
    s = scheduler(explain=True)
    for number in range(400):
        s.offer(request(number, slack=0.5), 0.0)
    batch = only(s, 0.0)
    assert batch.choice is not None
    verdicts = {each.variant: each.verdict for each in batch.choice.candidates}
    assert batch.model == "quick"
    assert verdicts == {"quick": "chosen", "slow": "worth less", "middle": "worth less"}
    assert batch.choice.reason == "worth most, accuracy less the price of its time"


def test_a_family_that_is_gone_returns_what_waits() -> None:
    s = scheduler(workers=0)
    s.offer(request(1), 0.0)
    assert [each.id for each in s.family_gone("family")] == [1]
    assert s.family_gone("family") == ()
    assert s.is_empty


def test_members_can_be_replaced() -> None:
    s = scheduler()
    s.family_served("family", MEMBERS[:1])
    assert s.offer(request(1, floor=0.85), 0.0).declined is Declined.UNSERVED
    assert s.offer(request(2), 0.0).declined is None
    assert only(s, 0.0).model == "quick"


def test_when_a_member_goes_what_was_promised_is_laid_out_with_the_others() -> None:
    s = scheduler()
    s.offer(request(0), 0.0)
    busy = only(s, 0.0)
    promised = range(1, 17)  # two full batches, in time with the fastest variant alone
    for number in promised:
        assert s.offer(request(number, slack=0.03), 0.0).declined is None
    assert s.offer(request(17, slack=1.0, allowed=frozenset({"quick"})), 0.0).declined is None
    s.family_served("family", MEMBERS[1:])
    s.batch_done("w0", busy.id, 0.005, None)
    batch = only(s, 0.005)
    assert batch.model == "middle"
    assert {each.id for each in batch.requests} < set(promised)
    s.batch_done("w0", batch.id, 0.03, None)
    assert 17 in {each.id for each in s.poll(1.0).expired}, "nobody was left to compute it"


def test_one_slow_picture_file_refuses_no_others() -> None:
    s = scheduler()
    s.offer(request(1, slack=1.0, allowed=frozenset({"quick"}), files=True), 0.0)
    batch = only(s, 0.0)
    s.batch_done(batch.worker, batch.id, 0.1, 0.001)
    # Of that variant alone it is known what files take, and it is too long.
    alone = request(2, at=0.1, slack=0.05, allowed=frozenset({"quick"}), files=True)
    assert s.offer(alone, 0.1).declined is Declined.INFEASIBLE
    assert s.offer(request(3, at=0.1, slack=0.05, files=True), 0.1).declined is None
    batch = only(s, 0.1)
    assert batch.model != "quick"
    s.batch_done(batch.worker, batch.id, 0.11, 0.005)
    # Pixels are computed as before.
    s.offer(request(4, at=0.2, slack=0.0021), 0.2)
    assert only(s, 0.2).model == "quick"


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12), st.sets(st.integers(0, 11)))
def test_what_is_taken_is_told_with_what_was_held_for_it(due: list[float], some: set[int]) -> None:
    family = Family("family", [Member("quick", 0.8)], 1.0)
    made = [Request(number, "family", number + 1, 0.0, due_s) for number, due_s in enumerate(due)]
    for one in made:
        family.add(one, one.deadline_s, 0.5 * one.id)
    order = list(family.requests)
    taken = [one for one in order if one.id in some]
    requests, held_s = family.take(taken)
    assert list(requests) == taken
    assert list(held_s) == [0.5 * one.id for one in taken]
    left = [one for one in order if one.id not in some]
    assert family.requests == left
    assert family.due == [one.deadline_s for one in left]
    assert family.held_s == [0.5 * one.id for one in left]
    assert family.rows == sum(one.rows for one in left)
    for one in left:
        assert family.remove(one.id) == (one, 0.5 * one.id)
    assert family.rows == 0
