"""Analyses: jobs cut into chunks, computed by processes that only run when nothing else wants to."""
