"""What the scheduler must keep to."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the scheduler must keep to; times in seconds."""

    max_batch_rows: int = 32
    max_delay_s: float = 0.0
    max_queue_rows: int = 1024
    """Rows that may wait per model and priority."""
    priority_age_s: float = math.inf
    """A request goes before those of the next higher priority that came so much later."""
    batches_ahead: int = 1
    """Batches a worker may hold besides the one it computes."""
    lead_s: float | None = 0.002
    """How long before the end of a batch one that is not full may be handed over; None: not at all."""
    max_attempts: int = 2
    """How often a request is computed when workers die of it or beside it."""
    hang_s: float = 10.0
    """A batch that takes longer, and far longer than expected, hangs."""
    hang_factor: float = 20.0
    """How many times its expected duration a batch must have taken to hang."""
    admission: bool = True
    """Whether a family takes only requests whose deadlines it can promise to keep."""
    patience_s: float = 1.0
    """After so long a request without a deadline, or for a single variant, counts as one that is due."""
    explain: bool = False
    """Whether each batch of a family tells of the choices there were."""
