"""Where the figures of a suite go: into the card beside the checkpoint, or into one of its own.

    place = publish(path, make_card(checkpoint, options, found, weights), found.pictures, episodes=8)

NAME.json keeps the largest sample of each suite that there is of the same weights. A smaller one is written to
NAME.8-episodes.json, with a page and pictures of its own, and leaves that file again when as large a one is measured.
"""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_collect import games
from data_collect.files import save_picture
from game_wm.evaluation.options import HELD_OUT_EPISODES, Found, Options
from game_wm.evaluation.report.card import file_hash, merge, read, same, tidy, without, write
from game_wm.evaluation.report.page import markdown
from game_wm.evaluation.rollout import memory_of
from game_wm.library import reference

if TYPE_CHECKING:
    from PIL import Image

    from game_wm.checkpoint import Checkpoint


def path_of(checkpoint: Checkpoint, options: Options, out: Path | None) -> Path:
    """The card's file. Other denoiser calls than the checkpoint's own have a card of their own."""
    assert checkpoint.path is not None
    own = options.steps in (None, checkpoint.model.steps)
    name = checkpoint.path.stem + ("" if own else f".{options.steps}-calls")
    return (out or checkpoint.path.parent) / f"{name}.json"


def publish(
    path: Path, card: dict[str, Any], pictures: Mapping[str, Image.Image], episodes: int, replace: bool = False
) -> Path:
    """Write a card of one suite, with `replace` into `path` whatever is there; returns the file that it is in now."""
    (suite,) = card["runs"]
    aside = path.with_name(f"{path.stem}.{episodes}-episodes.json")
    there = read(path)  # only now: another evaluation may have written meanwhile
    smaller = same(there, card) and sample(card, suite) < sample(there, suite)
    place = aside if smaller and not replace else path
    merged = merge(read(place), card)
    write(place, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    for name, picture in pictures.items():
        save_picture(place.with_name(f"{place.stem}{name}.png"), picture)
    write(place.with_suffix(".md"), markdown(merged, place))
    if place == path:
        _outgrown(aside, card, suite)
    return place


def _outgrown(aside: Path, card: Mapping[str, Any], suite: str) -> None:
    """Take a suite out of a card of smaller samples, now that there is as large a one; the file too when it was all."""
    old = read(aside)
    if not same(old, card) or not 0 < sample(old, suite) <= sample(card, suite):
        return
    left = without(old, suite)
    if left["runs"]:
        write(aside, json.dumps(left, indent=1, ensure_ascii=False) + "\n")
        write(aside.with_suffix(".md"), markdown(left, aside))
        return
    for file in (aside, aside.with_suffix(".md"), *aside.parent.glob(f"{glob.escape(aside.stem)}*.png")):
        file.unlink(missing_ok=True)


def sample(card: Mapping[str, Any], suite: str) -> int:
    """How large a sample of a suite a card holds: seeds, by frames of a long run, by prompts; 0 when it has none."""
    run, figures = card.get("runs", {}).get(suite), card.get(suite, {})
    if run is None:
        return 0
    first, last = (int(seed) for seed in run.get("seeds", "0-0").split("-"))
    long = figures.get("dreamt", figures.get("frames"))
    times = {"stability": long, "cost": figures.get("frames"), "revisit": len(figures)}
    return (last - first + 1) * int(times.get(suite) or 1)


def make_card(
    checkpoint: Checkpoint, options: Options, found: Found, weights: str, out: Path | None = None
) -> dict[str, Any]:
    """A card of one suite: its figures with what identifies them. `weights`: the hash of the checkpoint's file."""
    assert checkpoint.path is not None
    options = replace(options, episodes=found.episodes or options.episodes)
    head = {
        "checkpoint": checkpoint.path.stem, "game": checkpoint.game, "parameters": checkpoint.parameters,
        "tokens_per_frame": checkpoint.model.config.dynamics.tokens,
        "calls_per_frame": options.steps or checkpoint.model.steps, "trained": checkpoint.trained, "weights": weights,
    }  # fmt: skip
    head |= memory_of(checkpoint.model).about()
    teacher = reference(checkpoint.path, f"{checkpoint.path.stem}-teacher.json")
    head |= {"teacher": teacher.name} if teacher else {}
    head |= {"notice": said} if (said := games.notice(checkpoint.game)) else {}
    run = {"command": _command(checkpoint.path, options, out)}
    if found.suite == "revisit" and (window := options.window_of(checkpoint.path)):
        run |= {"window": window.name, "window_weights": file_hash(window)}
    counts = {"stability": 2 * options.dreams, "dream": options.runs, "cost": 0}
    if count := counts.get(found.suite, options.episodes):
        seeds = options.seeds(count)
        run |= {"seeds": f"{seeds[0]}-{seeds[-1]}"}
    return tidy(head | {"runs": {found.suite: run}} | found.results)


def _command(checkpoint: Path, options: Options, out: Path | None) -> str:
    """The line that measures it again, with {suites} where they are named."""
    flags = {
        "episodes": options.episodes if options.episodes != HELD_OUT_EPISODES else None,
        "frames": options.frames, "steps": options.steps,
        "prompts": ",".join(map(str, options.prompts)) if options.prompts else None,
        "window": options.window, "first-seed": options.first,
        "device": options.device if options.device != "cpu" else None,
        "precision": options.precision if options.precision != "auto" else None, "out": out,
    }  # fmt: skip
    line = f"python -m game_wm evaluate {shlex.quote(str(checkpoint))} --suite {{suites}}"
    return line + "".join(f" --{flag} {shlex.quote(str(value))}" for flag, value in flags.items() if value is not None)
