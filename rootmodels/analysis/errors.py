"""What can be wrong with an analysis."""

from __future__ import annotations


class AnalysisError(ValueError):
    """An analysis cannot be made of what was given; one line: what came, what was expected."""
