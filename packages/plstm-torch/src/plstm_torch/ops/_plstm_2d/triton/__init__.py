"""Triton kernels of the 2D ops with scalar gates; `form.py` launches them, the other files hold device code alone."""
