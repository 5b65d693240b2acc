"""Triton kernels of the 1D op.

Launchers and torch: `form.py` (scalar gates), `matrix_form.py`, `matrix_call.py` and `matrix_products.py` (matrices),
`slots.py` (both). Device code alone: `states.py`, `chunks.py`, `gradients.py` (scalar gates), `responses.py` and
`chain.py` (matrices), `places.py` (both).
"""
