"""The command `completion`: a script with which a shell completes commands and options."""

from argparse import Namespace

from roadmap.cli.commands import Exit
from roadmap.cli.parser import make_parser
from roadmap.common.errors import UserError


def completion(options: Namespace) -> Exit:
    """Print the script, for the console command `run-ladder`."""
    try:
        import shtab  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UserError("completion: needs shtab. Install it: pip install 'convnext-roadmap[completion]'.") from None
    print(shtab.complete(make_parser("run-ladder"), shell=options.shell))
    return Exit.OK
