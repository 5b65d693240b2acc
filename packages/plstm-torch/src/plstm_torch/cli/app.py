"""The command `plstm-torch`: find out what is wanted, import what it needs, and turn what goes wrong into one line.

Bad input ends with exit code 2, a failed run with 1, an interrupted one with 130. The plain installation has `check`;
everything else is read by tyro, which the extra `train` installs.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from plstm_torch.optional import FailedRunError, UserError, require
from plstm_torch.version import __version__

PROGRAM = "plstm-torch"
_GOES_ON = "; a run that has begun continues from its last checkpoint with --resume"


def app(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        words: of the command line, without the program's name; None takes those of the process.
    """
    given = list(sys.argv[1:] if words is None else words)
    try:
        code = _run(given)
        sys.stdout.flush()  # what has no room is to be said here, not when Python ends
    except UserError as error:
        _fail(str(error), 2)
    except FailedRunError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted" + _GOES_ON * (given[:1] == ["train"]), 130)
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "out of memory" in str(error) or "allocate memory" in str(error)):
            raise
        _fail("there is not enough memory; try a smaller model or a smaller --batch-size", 1)
    sys.exit(code)


def _drop_output() -> None:
    """Let Python, which writes what is left of the output at its end, succeed."""
    with contextlib.suppress(OSError, ValueError):  # an output that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"{PROGRAM} {__version__}")
        return 0
    if words[:1] == ["check"] and find_spec("tyro") is None:
        from plstm_torch.cli.plain_check import main

        return main(words[1:])
    require("tyro", "tyro")
    require("docstring_parser", "docstring-parser")
    from plstm_torch.cli.commands import run

    try:
        return run(words)
    except SystemExit as stop:  # help was printed
        return int(stop.code or 0)


def _fail(message: str, code: int) -> NoReturn:
    """Print one line, once for all processes of a machine, and exit."""
    # what a stranger's file says must not reach the terminal as a control sequence
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(message.split()))
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"{PROGRAM}: error: {shown}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(code)
