"""`plstm-torch check`: compare this installation with the numpy reference."""

from plstm_torch.optional import UserError
from plstm_torch.settings.commands import CheckSettings


def check(settings: CheckSettings) -> int:
    """Compare every op on this machine's devices and dtypes with the numpy reference.

    Args:
        settings: devices and dtypes.

    Returns:
        The exit code, 1 if an op is wrong.

    Raises:
        UserError: if there is no such device or dtype.
    """
    from plstm_torch.check import run_checks

    try:
        return run_checks(settings.device or None, settings.dtype or None)
    except ValueError as error:
        raise UserError(str(error)) from error
