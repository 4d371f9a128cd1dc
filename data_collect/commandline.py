"""Command lines: a program's commands in groups with a line each, a command's flags in groups, and the nearest right
word for a mistyped one.

    PROGRAM = Program("python -m train", "Training.", [Command("export", "one stage", "A file.", "train.export:main")])
    sys.exit(main_guard(lambda: PROGRAM.run(sys.argv[1:])))

Functions are named as "module:function" and imported when they are called, so that no `--help` waits for PyTorch.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import groupby
from typing import Any, NoReturn

from data_collect.errors import UserError, nearest

HELP = ("-h", "--help")
WIDTH = 120  # columns at most


class Parser(argparse.ArgumentParser):
    """The flags of one command: a one-line usage, what it does, the flags in groups, examples.

    What cannot be read is a `UserError`, with the flag or the choice that it is nearest to.
    """

    def __init__(self, prog: str, about: str, examples: Sequence[str] = ()) -> None:
        lines = "\n  ".join(examples)
        width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) - 2
        formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=32, width=width)
        super().__init__(prog=prog, description=about, epilog=f"examples:\n  {lines}" if examples else None,
                         formatter_class=formatter, allow_abbrev=False, add_help=False)  # fmt: skip
        self._positionals.title, self._optionals.title = "arguments", "flags"
        self.add_argument(*HELP, action="help", help=argparse.SUPPRESS)

    def group(self, title: str) -> argparse._ArgumentGroup:
        """Flags that belong together, under this title."""
        return self.add_argument_group(title)

    def format_help(self) -> str:
        """As the parent, with a usage that names only what must be given."""
        needed = [_shown(action) for action in self._actions if action.required and action.option_strings]
        placed = [_shown(action) for action in self._actions if not action.option_strings]
        self.usage = " ".join([self.prog, *placed, *needed, "[flags]"]).replace("%", "%%")
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As the parent, but nothing may be left over, and an unknown flag is told of before one that is missing."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--")] if "--" in words else words:
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.error(unknown([word], self._option_string_actions))
        known, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(unknown(rest, self._option_string_actions))
        return known, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(choices)}{nearest(str(value), choices)}"
            )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')} (see `{self.prog} --help`)")


def _shown(action: argparse.Action) -> str:
    """A flag or an argument in the line of usage."""
    name = str(action.metavar or action.dest.upper())
    shown = " ".join([*action.option_strings[-1:], name])
    if action.nargs in ("+", "*"):
        shown += " ..."
    return shown if action.required or not action.nargs else f"[{shown}]"


def unknown(rest: Sequence[str], flags: Sequence[str] | dict[str, Any]) -> str:
    """The sentence for arguments that nothing takes; `flags` are those that there are."""
    first = next((word for word in rest if word.startswith("-")), None)
    if first is None:
        return f"{rest[0]!r} is one argument too many"
    name = first.partition("=")[0]
    plain = name.replace("-", "_")
    ends = [flag for flag in flags if flag.replace("-", "_").endswith("." + plain.strip("_"))]
    hint = f"; did you mean {ends[0]}?" if len(ends) == 1 else nearest(name, flags)
    return f"there is no flag {name}{hint}"


def explained(error: Exception, parser: argparse.ArgumentParser) -> str:
    """The sentence for what a parser of jsonargparse refuses."""
    what, _, rest = str(error).partition(": ")
    return unknown(rest.split(), parser._option_string_actions) if what.startswith("unrecognized") else str(error)


@dataclass(frozen=True)
class Command:
    """A command: its name (of one or two words), the group it is listed in, what it does in a line, and as
    "module:function" what runs it (arguments -> exit status) and what makes its `Parser`.

    `all_flags`: the parser is only the page of flags that matter, and `--help-all` the way to the others.
    """

    name: str
    group: str
    about: str
    main: str
    parser: str
    all_flags: bool = False


@dataclass(frozen=True)
class Program:
    """A program of several commands, what it is for, and examples."""

    prog: str
    about: str
    commands: Sequence[Command]
    examples: Sequence[str] = ()

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command that is named first; its exit status. `UserError` for one that there is not."""
        command, rest = self.find(arguments)
        if command is None:
            print(self.help(" ".join(arguments[:1]) if arguments and arguments[0] not in HELP else ""))
            return 0
        if any(word in HELP for word in rest):
            print(load(command.parser)().format_help().rstrip())
            return 0
        if command.all_flags:
            rest = ["--help" if word == "--help-all" else word for word in rest]
        else:
            load(command.parser)().parse_args(rest)  # a mistyped flag is told of before PyTorch is loaded
        return load(command.main)(rest) or 0

    def find(self, arguments: Sequence[str]) -> tuple[Command | None, list[str]]:
        """The command and its arguments; None where a list of commands is asked for."""
        names = {command.name: command for command in self.commands}
        for count in (2, 1):
            if found := names.get(" ".join(arguments[:count])):
                return found, list(arguments[count:])
        if not arguments or arguments[0] in HELP:
            return None, []
        kinds = [name for name in names if name.startswith(f"{arguments[0]} ")]
        if kinds and arguments[1:2] and arguments[1] in HELP:
            return None, []
        if kinds and len(arguments) == 1:
            raise UserError(f"{arguments[0]} what? {', '.join(kinds)} (see `{self.prog} {arguments[0]} --help`)")
        word = " ".join(arguments[: 2 if kinds else 1])
        raise UserError(f"there is no command {word!r}{nearest(word, kinds or list(names))} (see `{self.prog} --help`)")

    def help(self, first: str = "") -> str:
        """The page: the commands in their groups; with `first` only those that begin with this word."""
        shown = [command for command in self.commands if not first or command.name.startswith(f"{first} ")]
        wide = max(len(command.name) for command in shown)
        rows = [f"usage: {self.prog} COMMAND [flags]", "", self.about]
        for group, commands in groupby(shown, lambda command: command.group):
            rows += ["", f"{group}:", *(f"  {command.name:{wide}}  {command.about}" for command in commands)]
        rows += ["", "examples:", *(f"  {line}" for line in self.examples)] if self.examples and not first else []
        return "\n".join([*rows, "", f"`{self.prog} COMMAND --help` has the flags of a command."])


def load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
