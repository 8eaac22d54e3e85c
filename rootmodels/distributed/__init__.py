"""Analyses, trainings and checks on the machines of a Ray cluster; nothing else of this project knows Ray.

Importing this package imports neither Ray nor torch: :mod:`rootmodels.distributed.joining` does, once asked.
"""
