"""An upper bound on what any policy can reach: the linear relaxation of serving a trace.

Requests are a fluid: those of one kind that come in one interval and are due in the same other one may be
computed in parts, in any interval between, each part by any variant that may compute them, at the cost of a
row in the batches in which rows are cheapest. Intervals are rounded in favour of the policy, and handing over
takes no time. So no policy does better, knowing the future or not, as long as batches take their mean times.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import highspy
import numpy as np

from rootserve.client.simulation.arrivals import Arrival
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.world import Fault


class Bound(NamedTuple):
    """The most that can be had: accuracies of what is met over what is offered, and the share that is met."""

    accuracy_goodput: float
    attainment: float


class _Class(NamedTuple):
    """Rows that come in interval `first` and are due in `last`; `options`: (cost in s, worth of a row)."""

    first: int
    last: int
    floor: float
    allowed: frozenset[str]


def bound(
    service: Service,
    arrivals: Sequence[Arrival],
    faults: Sequence[Fault] = (),
    step_s: float = 0.02,
) -> Bound:
    """Both bounds for a trace; every request counts as one, whatever its rows.

    Raises:
        RuntimeError: The solver found no optimum.
    """
    end_s = max(
        arrival.at_s + (arrival.deadline_s if math.isfinite(arrival.deadline_s) else 1.0)
        for arrival in arrivals
    )
    count = math.ceil(end_s / step_s) + 1
    classes: Counter[_Class] = Counter()
    worth: Counter[_Class] = Counter()
    for arrival in arrivals:
        due_s = min(arrival.at_s + arrival.deadline_s, end_s)
        key = _Class(
            int(arrival.at_s / step_s), int(due_s / step_s), arrival.floor, arrival.allowed
        )
        classes[key] += arrival.rows
        worth[key] += 1
    capacity = _capacity(service, faults, count, step_s)
    options = {
        (key.floor, key.allowed): _options(service, key.floor, key.allowed) for key in classes
    }
    keys = list(classes)
    most = []
    for accurate in (True, False):
        values = [
            [
                (cost_s * classes[key], (accuracy if accurate else 1.0) * worth[key])
                for cost_s, accuracy in options[key.floor, key.allowed]
            ]
            for key in keys
        ]
        most.append(_solve(keys, values, capacity) / len(arrivals))
    return Bound(*most)


def _options(service: Service, floor: float, allowed: frozenset[str]) -> list[tuple[float, float]]:
    """Cost of a row in seconds, and accuracy, of each variant that none beats in both."""
    kinds = [kind for kind, number in service.workers.items() if number]
    able = sorted(
        (
            min(
                service.latencies.row_s(kind, member.variant, service.limits.max_batch_rows)
                for kind in kinds
            ),
            member.accuracy,
        )
        for member in service.members
        if member.accuracy >= floor and (not allowed or member.variant in allowed)
    )
    found: list[tuple[float, float]] = []
    for cost_s, accuracy in able:
        if not found or accuracy > found[-1][1]:
            found.append((cost_s, accuracy))
    return found


def _capacity(service: Service, faults: Sequence[Fault], count: int, step_s: float) -> list[float]:
    """Seconds of computation that the workers have in each interval."""
    names = service.names()
    left = [len(names) * step_s] * count
    for fault in faults:
        lost = 1.0 - 1.0 / fault.factor if fault.factor else 1.0
        for place in range(count):
            begin_s, end_s = place * step_s, (place + 1) * step_s
            over_s = min(end_s, fault.at_s + fault.for_s) - max(begin_s, fault.at_s)
            left[place] -= max(0.0, over_s) * lost
    return left


def _solve(
    keys: Sequence[_Class],
    values: Sequence[Sequence[tuple[float, float]]],
    capacity: Sequence[float],
) -> float:
    """Maximise the worth: shares of each class by option, whose work is done in the class's intervals."""
    costs, lowers, uppers = [], [], []
    starts, index, value = [0], [], []
    rows = 2 * len(keys) + len(capacity)

    def column(cost: float, entries: Sequence[tuple[int, float]]) -> None:
        costs.append(-cost)
        lowers.append(0.0)
        uppers.append(math.inf)
        index.extend(row for row, _ in entries)
        value.extend(each for _, each in entries)
        starts.append(len(index))

    for n, (key, options) in enumerate(zip(keys, values, strict=True)):
        for work_s, worth in options:
            column(worth, [(n, 1.0), (len(keys) + n, work_s)])
        for place in range(key.first, key.last + 1):
            column(0.0, [(len(keys) + n, -1.0), (2 * len(keys) + place, 1.0)])
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(costs), rows
    program.col_cost_ = np.array(costs)
    program.col_lower_, program.col_upper_ = np.array(lowers), np.array(uppers)
    # No more than all of a class; no more work than is done on it; no more done than there is time.
    program.row_lower_ = np.full(rows, -math.inf)
    program.row_upper_ = np.array([1.0] * len(keys) + [0.0] * len(keys) + list(capacity))
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.array(starts, np.int32)
    program.a_matrix_.index_ = np.array(index, np.int32)
    program.a_matrix_.value_ = np.array(value)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(program)
    solver.run()
    status = solver.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"the linear program ended with {status}, expected an optimum")
    return -float(solver.getInfo().objective_function_value)
