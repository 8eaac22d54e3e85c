"""The open loop: requests depart on schedule, whether or not earlier ones were answered."""

import asyncio
import threading
from collections import deque

from rootserve.client.load.caller import Caller
from rootserve.client.load.pacer import Schedule, next_departure
from rootserve.client.load.recording import Recorder


class OpenLoop:
    """Sends each request at its instant, or, with `max_in_flight` under way, when one returns.

    A thread keeps the time: asyncio's own timer rounds up to whole milliseconds, which would be
    added to every response time, and sleeping in a thread is exact to some fifty microseconds.
    """

    def __init__(
        self, caller: Caller, recorder: Recorder, schedule: Schedule, max_in_flight: int
    ) -> None:
        self._caller = caller
        self._recorder = recorder
        self._schedule = schedule
        self._max_in_flight = max_in_flight
        # Number and instant of each departure that waits for another request's return.
        self._overdue: deque[tuple[int, float]] = deque()
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._announced = 0
        self._thread = threading.Thread(target=self._keep_time, name="pacer", daemon=True)
        # Those under way, and those that an error of this client's own has ended: whoever ends the
        # run finds it there, as in a closed loop. A run in which one was lost is no measurement.
        self.tasks: set[asyncio.Task[str | None]] = set()

    def start(self) -> None:
        """Start the schedule."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more; whatever was due and has not left is recorded as unfinished."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join()
        for n, due_s in self._overdue:
            self._recorder.never_sent(due_s, self._caller.kind_of(n))
        self._overdue.clear()
        # What the thread itself was too late for.
        while departure := next_departure(
            self._schedule, 0.0, self._announced, self._recorder.end_s
        ):
            self._recorder.never_sent(departure.due_s, self._caller.kind_of(self._announced))
            self._announced += 1

    def _keep_time(self) -> None:
        while departure := next_departure(
            self._schedule, self._caller.clock(), self._announced, self._recorder.end_s
        ):
            if departure.wait_s and self._stopped.wait(departure.wait_s):
                return
            if self._stopped.is_set():
                return
            n = self._announced
            self._announced += 1
            self._loop.call_soon_threadsafe(self._depart, n, departure.due_s)

    def _depart(self, n: int, due_s: float) -> None:
        if self._stopped.is_set():
            # Announced before the stop, and run by the event loop after it.
            self._recorder.never_sent(due_s, self._caller.kind_of(n))
        elif len(self.tasks) >= self._max_in_flight:
            self._recorder.held_back(due_s)
            self._overdue.append((n, due_s))
        else:
            self._launch(n, due_s)

    def _launch(self, n: int, due_s: float) -> None:
        task = asyncio.create_task(self._caller.send(n, due_s))
        self.tasks.add(task)
        task.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[str | None]) -> None:
        if task.cancelled() or task.exception() is None:
            self.tasks.discard(task)
        if self._overdue and not self._stopped.is_set():
            self._launch(*self._overdue.popleft())
