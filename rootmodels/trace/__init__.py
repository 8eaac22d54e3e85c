"""From any torch module to layers and tensors: :func:`rootmodels.trace.module.trace_module`.

The module is exported by torch (``export``), each operation becomes layers (``operations``, ``elementwise``,
``shapes``), which make a graph (``building``), and those that are one thing are put together (``simplify``).
"""
