"""The card: NAME.json (read by programs), NAME.md (read by people), NAME.png (truth above, dream below).

A suite that was not run is absent, never null. Running one suite again keeps the others of an existing card as long as
`weights` (the hash of the checkpoint file) and `calls_per_frame` are the same. `command` regenerates the whole card.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_collect.errors import UserError
from data_collect.files import whole

# The keys that a suite writes. The order is the card's.
SUITES: dict[str, tuple[str, ...]] = {"fidelity": ("fidelity", "reward", "termination")}
SUITES |= {suite: (suite,) for suite in ("sprites", "control", "stability", "revisit", "dream", "cost")}
RESULTS = [key for keys in SUITES.values() for key in keys]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 16 hexadecimal digits of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def tidy(value: Any) -> Any:
    """Figures to five digits; tuples become lists; what is not a number (NaN) leaves its dictionary, and so does an
    interval of such."""
    if isinstance(value, Mapping):
        return {str(k): tidy(v) for k, v in value.items() if not _missing(v)}
    if isinstance(value, list | tuple):
        return [tidy(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _missing(value: Any) -> bool:
    return any(isinstance(v, float) and math.isnan(v) for v in (value if isinstance(value, list | tuple) else [value]))


def read(path: Path) -> dict[str, Any]:
    """An existing card, {} when there is none; `UserError` when the file is no card."""
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, UnicodeDecodeError):
        card = None
    if not isinstance(card, dict):
        raise UserError(f"{path} is not a card: remove it, then evaluate again")
    return card


def same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two cards are of the same weights, played in the same way."""
    return all(old.get(key) == new[key] for key in ("weights", "calls_per_frame", "game"))


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new card, with the results of suites that were not run now taken from the old one if they still hold.

    Both hold `runs`: suite -> {"command", "seeds"}; the card's `command` and `seeds` are made of them. `line`, which
    somebody has written into the old one, stays.
    """
    kept = dict(old) if same(old, new) else {}
    new = {**new, "line": old["line"]} if "line" in old else new
    return _assemble(new, {**kept.get("runs", {}), **new["runs"]}, {**kept, **new})


def without(card: Mapping[str, Any], suite: str) -> dict[str, Any]:
    return _assemble(card, {name: run for name, run in card["runs"].items() if name != suite}, card)


def _assemble(
    source: Mapping[str, Any], runs: Mapping[str, Mapping[str, str]], results: Mapping[str, Any]
) -> dict[str, Any]:
    """What identifies the source, then the results of the suites in `runs`."""
    kept = {key: results[key] for suite, keys in SUITES.items() if suite in runs for key in keys if key in results}
    head = {key: value for key, value in source.items() if key not in (*RESULTS, "runs", "command", "seeds")}
    runs = {suite: runs[suite] for suite in SUITES if suite in runs}
    card = head | {"command": command(runs), "seeds": seeds(runs), "runs": runs} | kept
    return {key: value for key, value in card.items() if value != ""}


def command(runs: Mapping[str, Mapping[str, str]]) -> str:
    """One line that makes the card again: suites run with the same options in one command."""
    suites_of: dict[str, list[str]] = {}
    for suite, run in runs.items():
        suites_of.setdefault(run["command"], []).append(suite)
    return " && ".join(line.replace("{suites}", ",".join(suites)) for line, suites in suites_of.items())


def seeds(runs: Mapping[str, Mapping[str, str]]) -> str:
    """ "90000-90063": the held-out seeds that any suite asked for, ranges apart with a comma between them."""
    found: list[list[int]] = []
    for first, last in sorted(
        tuple(int(n) for n in run["seeds"].split("-")) for run in runs.values() if "seeds" in run
    ):
        if found and first <= found[-1][1] + 1:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    return ", ".join(f"{first}-{last}" for first, last in found)


def writable(folder: Path, flag: str = "--out") -> Path:
    """The folder, made if need be; `UserError` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}; name another folder with {flag}") from error


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. `UserError` where it cannot be written."""
    with whole(path) as file:
        file.write(text.encode())
