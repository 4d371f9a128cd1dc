"""`corpus`: many games into one folder, each an ordinary recording of its own, from a list in YAML.

    python -m data_collect corpus --config configs/base/games.yaml --out recordings/base --workers 2

The list has groups of games. `{}` in a group's `game` stands for each of its `names`, and what a group leaves out is as
at the top of the list:

    {size: 64x64, player: random, frames: 1500, groups: {ale: {game: "gym:ALE/{}-v5?skip=4", names: [Alien, Asterix]}}}

The recordings are named by size, group and name: OUT/64x64/ale-alien. Run it again and it continues.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_collect.dataset import CARD, Dataset
from data_collect.errors import UserError, nearest
from data_collect.guest.guest import Guest
from data_collect.shards.check import findings, measure

SETTINGS = {"size": "64x64", "player": "random", "frames": 1500, "episode_frames": 500}


@dataclass(frozen=True)
class Entry:
    """A recording of the list: the folder below `--out`, and what `record` is told."""

    group: str
    folder: str
    game: str
    player: str
    frames: int
    episode_frames: int

    def have(self, out: Path) -> int:
        """Frames that are recorded already, by the card."""
        try:
            return int(json.loads((out / self.folder / CARD).read_text()).get("frames", 0))
        except (OSError, ValueError):
            return 0

    def record(self, out: Path) -> str:
        """Record in a process of its own; why it failed, or "" where it did not."""
        flags = {"game": self.game, "player": self.player, "frames": self.frames, "episode-frames": self.episode_frames}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "data_collect", "record", *words, "--out", str(out / self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        return said[-1].removeprefix("error: ") if done.returncode else ""

    def told(self, out: Path) -> str:
        """What there is of it, and whether its pictures are of no use."""
        dataset = Dataset(out / self.folder)
        odd = [f"; look: {each.sentence}" for each in findings(measure(dataset)) if each.kind in ("constant", "plain")]
        return f"{self.have(out):,} frames{''.join(odd)}"


def read_list(path: Path) -> list[Entry]:
    """The recordings that a list names. `UserError`: it cannot be read, or says what cannot be."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read ({said}): give --config a list such as configs/base/games.yaml"
        ) from None
    groups = content.get("groups") if isinstance(content, Mapping) else None
    if not isinstance(groups, Mapping) or not groups:
        raise UserError(f"{path} has no `groups` of games: see configs/base/games.yaml")
    shared = _known(path, "the list", {k: v for k, v in content.items() if k != "groups"}, SETTINGS)
    entries = [entry for name, group in groups.items() for entry in _entries(path, str(name), group, shared)]
    folders = [entry.folder for entry in entries]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UserError(f"{path} names {twice} twice: put one of the two into a group of another name")
    return entries


def _entries(path: Path, name: str, group: Any, shared: Mapping[str, Any]) -> Iterator[Entry]:
    """The recordings of one group."""
    own = _known(path, f"group {name}", group, {*SETTINGS, "game", "names"}) if isinstance(group, Mapping) else {}
    if not isinstance(own.get("game"), str) or not isinstance(own.get("names"), list):
        raise UserError(f"{path}: group {name} needs a `game` with {{}} in it, and a list of `names`")
    values = {**SETTINGS, **shared, **own}
    size = re.fullmatch(r"(\d+)x(\d+)", str(values["size"]))
    if not size:
        raise UserError(f"{path}: size {values['size']} of group {name} must look like 64x64")
    for count in ("frames", "episode_frames"):
        if not isinstance(values[count], int):
            raise UserError(f"{path}: {count} {values[count]!r} of group {name} is no whole number")
    for each in map(str, own["names"]):
        game = own["game"].replace("{}", each)
        game += f"{'&' if '?' in game else '?'}width={size[1]}&height={size[2]}"
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", each).lower()).strip("-")
        folder = f"{values['size']}/{name}-{slug}"
        yield Entry(name, folder, game, str(values["player"]), values["frames"], values["episode_frames"])


def _known(path: Path, where: str, given: Mapping[str, Any], names: Sequence[str] | set[str] | dict) -> dict[str, Any]:
    """The settings, all of which have names that there are."""
    if unknown := next((str(name) for name in given if name not in names), None):
        raise UserError(f"{path}: {where} has a setting {unknown!r} that there is not{nearest(unknown, names)}")
    return dict(given)


def missing(entries: Sequence[Entry]) -> dict[str, str]:
    """Why the groups that cannot be played cannot: the first game of each is made."""
    firsts = {entry.group: entry for entry in reversed(entries)}
    why = {}
    for group, entry in reversed(firsts.items()):
        try:
            Guest(entry.game).close()
        except UserError as error:
            why[group] = str(error)
    return why


def corpus(config: Path, out: Path, workers: int = 1, skip_missing: bool = False, only: str = "") -> int:
    """Record the list into `out`; how many frames it then holds. `UserError`: a game is not installed (unless
    `skip_missing`), or failed while it was recorded."""
    entries = [entry for entry in read_list(config) if not only or entry.group == only]
    if not entries:
        raise UserError(f"{config} has no group {only!r}")
    open_ = [entry for entry in entries if entry.have(out) < entry.frames]
    if absent := missing(open_):
        if not skip_missing:
            raise UserError(f"{'; '.join(absent.values())}; or leave them out with --skip-missing")
        for group, why in absent.items():
            print(f"{group} is left out: {why}", flush=True)
        open_ = [entry for entry in open_ if entry.group not in absent]
    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        for number, (entry, why) in enumerate(zip(open_, pool.map(lambda entry: entry.record(out), open_)), 1):
            failed += bool(why)
            print(f"{number}/{len(open_)} {entry.folder}: {why or entry.told(out)}", flush=True)
    if failed:
        raise UserError(f"{failed} of {len(entries)} games failed: run the same command again, or mend {config}")
    return sum(entry.have(out) for entry in entries)
