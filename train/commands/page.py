"""The page of a command: the flags that it reads, and what `--help` prints of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_collect.commandline import Parser


class Flag(NamedTuple):
    """A flag as the page shows it ("--out DIR"; a switch has no value), or an argument; `how`: for `add_argument`."""

    shown: str
    about: str
    how: dict[str, Any]


def flag(shown: str, about: str, **how: Any) -> Flag:
    """A flag; its default, if it has one, is told behind what it is about."""
    if isinstance(default := how.get("default"), float):
        default = f"{default:g}"
    told = about if default is None else f"{about} (default: {default})".strip()
    return Flag(shown, told, how)


def page(command: str, about: str, examples: Sequence[str], *rows: Flag | str, prog: str = "python -m train") -> Parser:
    """The parser of a command. A string among the flags is the title of those that follow."""
    parser = Parser(f"{prog} {command}", about, examples)
    group: Any = parser
    for row in rows:
        if isinstance(row, str):
            group = parser.group(row)
            continue
        name, _, value = row.shown.partition(" ")
        kind = {"metavar": value} if value else {"action": "store_true"} if name.startswith("--") else {}
        group.add_argument(name, help=row.about, **kind | row.how)
    return parser
