"""Triton kernels of the 1D op with scalar gates; `form.py` launches them, the other files hold device code alone."""
