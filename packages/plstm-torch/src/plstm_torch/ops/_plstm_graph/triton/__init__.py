"""Triton kernels of the graph op: states of edges by level or by walks (`states.py`), sums over nodes (`nodes.py`)."""
