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
from contextlib import contextmanager
from pathlib import Path

MOST_SAID = 300  # letters of an exception's own words
# What a path that was named may be: not ours, not there to be written, a file for a folder or a folder for a file.
PATHS = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


class UserError(Exception):
    """One sentence that names what is wrong (the file, the flag, the id) and what to do about it."""


class Fault(UserError):
    """A game, or who plays it, fails in the middle of an episode, which ends there; what was played counts."""


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
    """Run `main`; its exit status: 2 after a `UserError`, a full disk or a path that cannot be used (one line on
    stderr), 130 after Ctrl-C."""
    try:
        return main() or 0
    except UserError as error:
        return _tell(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, a closed pager) has left: keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if (isinstance(error, PATHS) or error.errno == errno.EROFS) and error.filename:
            return _tell(f"{error.filename}: {error.strerror}; name another path, or change its permissions")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _tell(disk_full(error.filename))


def disk_full(path: object = None) -> str:
    """The sentence for a full disk."""
    where = f" while writing {path}" if path else ""
    return f"the disk is full{where}; free some space and run the same command again, it continues where it stopped"


def _tell(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2
