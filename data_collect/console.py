"""What goes to the terminal, or to a file in its place, whatever letters that knows.

accept_all_letters()        # once, before anything is printed: what an output does not know is spelt otherwise
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

SPELT = {
    "–": "-", "—": "-", "−": "-", "×": "x", "·": "-", "…": "...", "→": "->", "←": "<-", "↑": "^", "↓": "v", "≤": "<=",
    "≥": ">=", "±": "+-", "“": '"', "”": '"', "’": "'", "█": "#", "▓": "#", "▒": "#", "░": "-", "━": "-", "─": "-",
    "╸": "-", "╺": "-", "│": "|",
}  # fmt: skip


def accept_all_letters() -> None:
    """Have standard output and standard error take what their encoding (cp1252, Latin-1) has no letter for."""
    codecs.register_error("spelt", _spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="spelt")


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: the letter by others, "?" where none stand for it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = [unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() for letter in letters]
    return "".join(SPELT.get(letter) or bare or "?" for letter, bare in zip(letters, plain)), error.end
