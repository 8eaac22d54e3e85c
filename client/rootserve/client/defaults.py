"""What holds where nothing is given; apart, so that the help can tell it without loading what uses it."""

TIMEOUT_S = 30.0
"""Deadline of a call."""
DURATION_S, WARMUP_S = 10.0, 2.0
"""Of a load run: what is measured, and what is sent before."""
MAX_IN_FLIGHT = 1024
"""Most requests of an open loop under way at once."""
MAX_TRIALS = 10
"""Most windows of a run that is to become stable."""
ROUNDS = 5
"""Runs of each side that take turns."""

LOAD_TIMEOUT_S = 600.0
"""Of a call that loads a model, which may take a server minutes."""
