"""`python -m plstm_torch` is the same as the command `plstm-torch`; torchrun needs a module."""

from plstm_torch.cli import app

if __name__ == "__main__":
    app()
