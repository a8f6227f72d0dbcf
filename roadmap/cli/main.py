"""The program: reads the command line, carries out one command and ends with its exit code.

`python run_ladder.py`, `python -m roadmap` and `run-ladder` are the same.
"""

import io
import os
import sys
from collections.abc import Sequence

from roadmap.cli.commands import COMMANDS, Exit
from roadmap.cli.parser import PROGRAM, parse
from roadmap.common.errors import UserError
from roadmap.common.machine import collecting_garbage_rarely
from roadmap.common.process_group import my_rank


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Carry out one command and return its exit code, one of `Exit`.

    Args:
        argv: What follows the program's name; None takes the process's own.
        program: What the program is called in its messages.
    """
    with collecting_garbage_rarely():  # figures, too, are many objects and little garbage
        return _carry_out(argv, program)


def _carry_out(argv: Sequence[str] | None, program: str) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or file that cannot show a character ends nothing
    if my_rank():  # torchrun's first process speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        options = parse(sys.argv[1:] if argv is None else argv, program)
        if options.steps_module:
            from roadmap.ladder.own_steps import load_steps

            for path in options.steps_module:
                load_steps(path)
        code = COMMANDS[options.command].function()(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(code)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return Exit.REFUSED
    except BrokenPipeError:  # the reader (`| head`) has seen enough; nor will it read what Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        print(f"{program}: {error.filename or 'output'}: {error.strerror or error}.", file=sys.stderr)
        return Exit.REFUSED
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "roadmap", "analysis"):
            raise
        print(
            f"{program}: needs the package '{missing}', which this Python ({sys.executable}) does not have. Activate "
            "the environment that the program was installed into, or install it (README.md, Quick start).",
            file=sys.stderr,
        )
        return Exit.REFUSED
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return Exit.INTERRUPTED


def console() -> int:
    """Be the installed command `run-ladder`."""
    return main(program="run-ladder")
