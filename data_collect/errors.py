"""Errors that are the user's to mend, told in one sentence; every entry point ends through `main_guard`.

if __name__ == "__main__":
    sys.exit(main_guard(main))
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_collect.console import accept_all_letters
from data_collect.system import allow_many_files

MOST_SAID = 300  # letters of an exception's own words
# What a path that was named may be: not ours, not there to be written, a file for a folder or a folder for a file.
PATHS = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


class UserError(Exception):
    """One sentence that names what is wrong (the file, the flag, the id) and what to do about it."""


class Fault(UserError):
    """A game or its agent fails in the middle of an episode, which ends there; what was played counts."""


def nearest(word: str, words: Iterable[str]) -> str:
    """The end of a sentence about a word that is none of these: "; did you mean dynamics?", "" where none is near."""
    folded = {each.casefold(): each for each in words}
    found = difflib.get_close_matches(word.casefold(), folded, 1)
    return f"; did you mean {folded[found[0]]}?" if found else ""


def failed(what: str, error: BaseException) -> Fault:
    """The sentence for an exception in code of the user's, a game or a policy: where it was raised, and what it is."""
    others = ("<", str(Path(__file__).parent), *sysconfig.get_paths().values())
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    where = f" in {own[-1].filename}, line {own[-1].lineno}" if own else ""
    said = " ".join(" ".join(traceback.format_exception_only(error)).split())
    return Fault(f"{what} fails{where}: {said[:MOST_SAID]}")


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """The user's code runs here: whatever it raises, be it SystemExit, is a `Fault` of `what`."""
    try:
        yield
    except Fault:
        raise
    except UserError as error:
        raise Fault(str(error)) from error
    except BaseException as error:
        raise failed(what, error) from error


def main_guard(main: Callable[[], int | None]) -> int:
    """Run `main`; its exit status: 2 after a `UserError` or a refusal of the system's that the user can mend (one line
    on stderr), 130 after Ctrl-C, 141 when the reader of our output has left."""
    accept_all_letters()
    allow_many_files()
    try:
        os.getcwd()
    except FileNotFoundError:  # libraries end the process when they find that out
        return _tell("the folder that you are in is gone: change to another one (cd), and run the same command again")
    try:
        try:
            status = main() or 0
        except SystemExit as end:
            if isinstance(end.code, str):
                raise
            status = end.code or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # here, since the interpreter would complain at its end
        return status
    except UserError as error:
        return _tell(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # head, or a pager that was closed
        _drop_output()
        return 141
    except OSError as error:
        if sentence := refusal(error):
            _drop_output()
            return _tell(sentence)
        raise


def _drop_output() -> None:
    """Drop what standard output cannot write; the interpreter would complain of it at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refusal(error: OSError) -> str | None:
    """The sentence for a refusal of the system's that the user can mend; None for another."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(error.filename)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open at once: raise the limit (`ulimit -n 1024`), or take fewer --workers"
    if error.errno == errno.ENAMETOOLONG:
        return f"{shortened(error.filename)}: the name is too long for the file system; choose a shorter one"
    if error.filename and (isinstance(error, PATHS) or error.errno == errno.EROFS):
        return f"{error.filename}: {error.strerror}; name another path, or change its permissions"
    return None


def shortened(name: object, most: int = 60) -> str:
    """A long name by its first and last letters."""
    words = str(name)
    return words if len(words) <= most else f"{words[: most // 2]}...{words[-most // 2 :]}"


def disk_full(path: object = None) -> str:
    where = f" while writing {path}" if path else ""
    return f"the disk is full{where}; free some space and run the same command again, it continues where it stopped"


def _tell(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2
