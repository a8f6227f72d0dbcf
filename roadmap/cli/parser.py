"""The parser of the command line: a sub-parser for each command; whatever is wrong is a `UserError` of one line.

The command `completion` is here too: it prints what the parser knows.
"""

import argparse
import difflib
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from roadmap.cli import arguments
from roadmap.cli.arguments import Option
from roadmap.cli.commands import COMMANDS, Command, Exit, owners_of
from roadmap.common.errors import UserError, unknown

PROGRAM = "run_ladder.py"
DEFAULT = "run"
OPTIONS = {option.name: option for option in vars(arguments).values() if isinstance(option, Option)}
ABOUT = "Climb the ConvNeXt modernization roadmap: plan, train, judge and draw a ladder of design steps."
FIRST_STEPS = {
    "verify": "build all networks and count them, in seconds",
    "--base resnet50": "train the default ladder and report it",
    "compare --base resnet50": "which steps help, and how sure that is",
}


class Formatter(argparse.HelpFormatter):
    """Help with an option and its meaning on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=27)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """Show that an option takes several values as "NAME ..."."""
        forms = {"?": "[{}]", "*": "[{} ...]", "+": "{} ..."}
        form = forms.get(action.nargs, "") if isinstance(action.nargs, str) else ""
        return form.format(action.metavar) if form else super()._format_args(action, default_metavar)


class Parser(argparse.ArgumentParser):
    """A parser that raises what it refuses, for `main` to print like any other refusal."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(formatter_class=Formatter, allow_abbrev=False, add_help=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            UserError: Always.
        """
        message = message.removeprefix("argument ").replace("expected one argument", "needs a value")
        message = message.replace("expected at least one argument", "needs a value or more")
        raise UserError(f"{message}. '{self.prog} --help' shows what it takes.")

    def format_help(self) -> str:
        """Return the help, what the command does right below how it is typed: a screen has few lines."""
        return super().format_help().replace("\n\n", "\n", 1)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise unknown(action.dest, value, action.choices)


class TopParser(Parser):
    """The program's parser, whose help lists the commands."""

    def format_help(self) -> str:
        """Return the help: what to begin with, then the commands in their groups."""
        lines = [ABOUT, "", f"usage: {self.prog} [COMMAND] [option ...]", "", "to begin with:"]
        lines += [f"  {self.prog} {words:<26}{does}" for words, does in FIRST_STEPS.items()]
        group = ""
        for command in COMMANDS.values():
            if command.group != group:
                group = command.group
                lines += ["", f"{group}:"]
            lines.append(f"  {command.name:<12}{command.help}")
        return "\n".join([*lines, "", f"'{self.prog} COMMAND --help' shows the options of a command.", ""])


def make_parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, for which the command comes first.

    Args:
        program: What the program is called in its help.
    """
    parser = TopParser(prog=program)
    _add_help(parser)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS.values():
        _fill(subparsers.add_parser(command.name, prog=f"{program} {command.name}", help=command.help), command)
    return parser


def command_parsers(program: str = PROGRAM) -> Iterator[tuple[str, str, str, argparse.ArgumentParser]]:
    """Yield each command for a reference of them: its name, its group, what it does in a line, its parser."""
    for command in COMMANDS.values():
        parser = Parser(prog=f"{program} {command.name}")
        _fill(parser, command)
        yield command.name, command.group, command.help, parser


def _fill(parser: argparse.ArgumentParser, command: Command) -> None:
    """Give a command's parser what it does and its options."""
    words = [f"[{word.name}]" if word.nargs else word.name for word in command.words]
    parser.usage = " ".join(["%(prog)s", *words, "[option ...]"])
    parser.description = f"{command.help[0].upper()}{command.help[1:]}."
    for heading, options in command.options.items():
        group = parser.add_argument_group(heading)
        for option in options:
            group.add_argument(option.argument, help=option.help, **option.keywords())
    for option in command.accepted:
        parser.add_argument(option.name, help=argparse.SUPPRESS, **option.keywords())
    _add_help(parser)


def _add_help(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)


def parse(words: Sequence[str], program: str = PROGRAM) -> Namespace:
    """Read a command line, in which options may stand before the command; without one, it is that of `run`.

    Args:
        words: What follows the program's name.
        program: What the program is called in its help.

    Returns:
        The command and every option of the program, as given or by default.

    Raises:
        UserError: If the command or an option is unknown or lacks a value.
    """
    command, rest = split_command(words)
    parser = make_parser(program)
    if command is None and {"-h", "--help"} & set(rest):
        parser.parse_args(["--help"])
    command = command or DEFAULT
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    defaults = {option.dest: False if option.is_flag else option.default for option in OPTIONS.values()}
    options, extra = parser.parse_known_args([command, *rest], Namespace(**defaults))
    if extra:
        raise _refusal(extra[0], command)
    for option in OPTIONS.values():
        _check_unicode(option, getattr(options, option.dest))
    if options.executor is None:
        options.executor = "slurm" if options.dry_run else "local"
    return options


def _check_unicode(option: Option, value: Any) -> None:
    """Refuse a value that tables, logs and scripts could not hold."""
    from roadmap.common.files import check_name, in_unicode

    for part in value if isinstance(value, list) else [value]:
        if option.path:
            check_name(part, option.name)
        elif isinstance(part, str) and in_unicode(part) != part:
            raise UserError(f"{option.name}: '{in_unicode(part)}' is not UTF-8. Say it in other letters.")


def split_command(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the command of a command line, None where it has none, and the other words.

    It is the first word that is neither an option nor a value of one. An option that takes as many values as there are
    ends at a command's name.
    """
    rest = list(words)
    at = 0
    while at < len(rest):
        name, has_value, _ = rest[at].partition("=")
        if not name.startswith("-"):
            return rest[at], rest[:at] + rest[at + 1 :]
        option = OPTIONS.get(name)
        at += 1
        if has_value or (option and option.is_flag) or name in ("-h", "--help"):
            continue
        if option and not option.nargs:
            at += 1
            continue
        while at < len(rest) and rest[at] not in COMMANDS and not rest[at].startswith("--"):
            at += 1
    return None, rest


def _refusal(word: str, command: str) -> UserError:
    """Return the error for a word that a command does not take: whose it is, or which one is nearest."""
    name = word.partition("=")[0]
    if not name.startswith("-"):
        taking = [other.name for other in COMMANDS.values() if any(taken.nargs for taken in other.words)]
        return UserError(f"'{word}': is for {', '.join(taking)}, not for {command}. Leave it out.")
    if owners := owners_of(name):
        return UserError(f"{name}: is for {', '.join(owners)}, not for {command}. Leave it out.")
    known = [option.name for option in COMMANDS[command].all_options()]
    if near := difflib.get_close_matches(name, known, n=1):
        hint = f" Did you mean {near[0]}?"
    elif near := difflib.get_close_matches(name, [n for n in OPTIONS if owners_of(n)], n=1):
        hint = f" The nearest is {near[0]}, which is for {', '.join(owners_of(near[0]))}."
    else:
        hint = ""
    return UserError(f"{name}: is no option of {command}.{hint} '{command} --help' lists them.")


def completion(options: Namespace) -> Exit:
    """Print a script with which a shell completes commands and options, for the console command `run-ladder`."""
    try:
        import shtab  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UserError("completion: needs shtab. Install it: pip install 'convnext-roadmap[completion]'.") from None
    print(shtab.complete(make_parser("run-ladder"), shell=options.shell))
    return Exit.OK
