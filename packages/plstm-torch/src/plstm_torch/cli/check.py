"""`plstm-torch check`: compare this installation with the numpy reference."""

from typing import Annotated

import typer

from plstm_torch.optional import UserError


def check(
    device: Annotated[list[str] | None, typer.Option(help="Device to check; may be repeated. Default: all.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Dtype to check; may be repeated. Default: all.")] = None,
) -> None:
    """Compare every op on this machine's devices and dtypes with the numpy reference; exit code 1 if one is wrong."""
    from plstm_torch.check import run_checks

    try:
        code = run_checks(device or None, dtype or None)
    except ValueError as error:
        raise UserError(str(error)) from error
    raise typer.Exit(code)
