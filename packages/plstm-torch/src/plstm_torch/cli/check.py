"""`plstm-torch check`: compare this installation with the numpy reference."""

import typer


def check() -> None:
    """Compare every op on this machine's devices and dtypes with the numpy reference; exit code 1 if one is wrong."""
    from plstm_torch.check import run_checks

    raise typer.Exit(run_checks())
