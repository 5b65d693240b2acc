"""What the Triton kernels of all ops share; README.md beside this file says how they are built and tested."""
