"""Bad input ends in one line on stderr and exit code 2, a failed run in one line and exit code 1."""

import sys
from collections.abc import Sequence
from typing import Any

import typer
import typer.core

from plstm_torch.optional import UserError
from plstm_torch.training.distributed import environment_rank
from plstm_torch.training.loop import TrainingDivergedError

# typer takes these from click or, since it carries its own copy, from itself; BadParameter is public in both
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


class OneLineErrors(typer.core.TyperGroup):
    """A group of commands that turns errors which the user can put right into one line."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run the command line and exit.

        Args:
            args: words of the command line; None takes those of the process.
            standalone_mode: False returns instead of exiting and lets errors through, as in typer.
            **extra: as in typer.
        """
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except _ParserError as error:
            _fail(error.format_message(), 2)  # type: ignore[attr-defined]
        except UserError as error:
            _fail(str(error), 2)
        except TrainingDivergedError as error:
            _fail(str(error), 1)
        except (typer.Abort, KeyboardInterrupt):
            _fail("interrupted", 130)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    """Print one line, once for all processes of a run, and exit."""
    if environment_rank() == 0:
        print(f"plstm-torch: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
