"""What a comparison writes: of every row the figures as an entry of a list, and tables of them.

entry(lab, row, outcome, timing, machine)       # one JSON object; figures that there are not are absent
ratios(entry, default)                          # adds `ratio`: each figure over the default's, in the same run
text = markdown(lab, entries, "efficiency")
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.lab.rows import FAMILIES, Lab, Row
from train.lab.speed import BUSY

LEARNT = "## What was learnt"
RETURNED = ("65-256", "257-1024")  # ages of the one figure of the revisit suite
BY_FRAME = ("psnr", "sharpness", "feature_distance")
FIGURES = ("ms_per_frame", "frames_per_second", "calls_per_frame", "parameters", "megabytes",
           "training_frames_per_second", *BY_FRAME, "revisit_psnr", "reconstruction_psnr", "tokens_per_frame",
           "ms_to_decode")  # fmt: skip


def entry(
    lab: Lab, row: Row, outcome: dict[str, Any] | None, timing: dict[str, Any], machine: dict[str, Any]
) -> dict[str, Any]:
    """One row: what it is, its figures, and on how much they were measured.

    `ms_per_frame` is how long a player waits for a frame, `frames_per_second` counts those of all players.
    """
    found: dict[str, Any] = {"name": row.name, "family": row.family, "method": row.method, "why": row.why,
                             "config": row.file, "status": "measured" if outcome else "not run"}  # fmt: skip
    found |= {"from": row.start} if row.start else {}
    if outcome is None:
        return found
    tokenizer, players = row.stage == "tokenizer", row.play.players
    if "ms" in timing:
        found |= {"ms_to_decode" if tokenizer else "ms_per_frame": timing["ms"]}
        found |= {} if tokenizer else {"frames_per_second": 1e3 * players / timing["ms"], "players": players}
        found |= {} if tokenizer else {"calls_per_frame": timing["calls"]}
        found |= {name: timing[name] for name in ("parameters", "megabytes")}
    found |= {"note": timing["note"]} if "note" in timing else {}
    found |= {"minutes": outcome["minutes"]} if outcome["minutes"] else {}
    if outcome.get("frames_per_second"):
        found["training_frames_per_second"] = outcome["frames_per_second"]
    sample = {**machine, "minutes_a_row": lab.minutes, "episodes": lab.episodes, "prompt": lab.prompt}
    sample["frames_timed"] = lab.timed
    if tokenizer:
        names = ("reconstruction_psnr", "sharpness", "feature_distance", "tokens_per_frame")
        return found | {name: outcome[name] for name in names} | {"sample": sample} | _beside(timing, "ms_to_decode")
    fidelity = outcome["fidelity"]
    found |= {name: fidelity[name] for name in BY_FRAME if name in fidelity}
    found["interval"] = {name: fidelity[f"{name}_interval"] for name in BY_FRAME if name in fidelity}
    returned = [card["psnr"][age] for card in outcome["revisit"].values() for age in RETURNED if age in card["psnr"]]
    found |= {"revisit_psnr": statistics.fmean(returned)} if returned else {}
    found |= {"quality_of": outcome["quality_of"]} if "quality_of" in outcome else {}
    revisit = {"mazes": lab.revisit, "revisit_prompts": list(lab.prompts)} if lab.revisit else {}
    return found | {"sample": sample | revisit} | _beside(timing, "ms_per_frame")


def _beside(timing: dict[str, Any], name: str) -> dict[str, Any]:
    """The ratio of times, which were measured in turn: it is not that of the two entries."""
    return {"ratio": {name: timing["ratio"]}} if "ratio" in timing else {}


def ratios(found: dict[str, Any], default: dict[str, Any] | None) -> None:
    """Add to `found["ratio"]` every figure over the default's."""
    if default is None or found["status"] != "measured" or found["status"] != default["status"]:
        return
    ratio = found.setdefault("ratio", {})
    for name in FIGURES:
        if name in found and name in default and name not in ratio:
            ratio[name] = _over(found[name], default[name])
    if "ms_per_frame" in ratio:  # of times that were measured in turn, too
        ratio["frames_per_second"] = found["players"] / default["players"] / ratio["ms_per_frame"]


def _over(value: Any, other: Any) -> Any:
    if isinstance(value, dict):
        return {k: _over(value[k], other[k]) for k in value if k in other}
    return value / other if other else float("nan")


def markdown(lab: Lab, entries: Sequence[dict[str, Any]], plot: str | None) -> str:
    """Tables, a family each, with the default on top; what they mean and how they are made is told above them."""
    sample = next(found["sample"] for found in entries if "sample" in found)
    at, mazes = " / ".join(map(str, lab.horizons)), lab.revisit
    busy = sample.get("cores_in_use_by_others")
    meanwhile = "" if busy is None else f", while other programs kept {busy:.1f} cores busy"
    returns = (
        "*Returns*: PSNR of what was last on screen 65 to 1,024 frames ago, the mean of both ages and both spans of "
        f"the suite revisit, {mazes} mazes, prompts of {', '.join(map(str, lab.prompts))} frames. "
    )
    lines = [
        "# Methods side by side",
        f"`python -m game_wm compare {Path(entries[0]['config']).parent}/*.yaml` trains, judges and times every row "
        "and writes this page: [how to run it](how-to/compare.md).",
        f"**Training.** {lab.minutes:g} minutes for each row that trains, on {lab.latents}; a row that starts from "
        "another one has the minutes of that one too, and the column counts all of them.",
        f"**Sample.** {lab.episodes} held-out episodes, {lab.prompt} real frames each, then free rollouts. PSNR "
        f"(dB), sharpness (1 is that of the tokenised truth) and feature distance after {at} frames. "
        f"{returns * bool(mazes)}So small a sample tells large differences alone; intervals stand in the JSON file.",
        f"**Times.** Medians of at most {lab.timed} frames of the model alone, in turn with the default's, on "
        f"{sample['machine']}{meanwhile}"
        + (": **not to be relied on**. " if (busy or 0) > BUSY else ". ")
        + "*frames/s* counts the frames of all players; MB are those of the weights as they are played.",
        "In brackets every figure over the default's, ×0.50 being half. In italics: a row whose frames are those of "
        "the row that it starts from, made in another way, has the figures of that one.",
    ]
    if plot:
        lines.append(f"![quality against milliseconds]({plot}.png)")
    for family in FAMILIES:
        rows = [found for found in entries if found["family"] == family]
        default = lab.default_of(family)
        rows = [f for f in entries if f["name"] == default] * bool(rows) + [f for f in rows if f["name"] != default]
        if rows:
            columns = TOKENIZER if family == "tokenizer" else player_columns(lab)
            head = ["row", "method", *columns, "why"]
            cells = [[found["name"], found["method"], *_cells(found, columns), _why(found)] for found in rows]
            table = [head, ["---"] * len(head), *cells]
            lines.append(f"## {family.capitalize()}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in table))
    return "\n\n".join(lines) + "\n"


Column = tuple[str, str, tuple[int, ...] | None]  # figure, format, frames after which, if it is one for each
TOKENIZER: dict[str, Column] = {
    "ms to decode": ("ms_to_decode", "{:.2f}", None),
    "tokens a frame": ("tokens_per_frame", "{:.0f}", None),
    "parameters": ("parameters", "{:,.0f}", None),
    "MB": ("megabytes", "{:.1f}", None),
    "minutes": ("minutes", "{:g}", None),
    "training frames/s": ("training_frames_per_second", "{:.0f}", None),
    "reconstruction, dB": ("reconstruction_psnr", "{:.2f}", None),
    "sharpness": ("sharpness", "{:.2f}", None),
    "feature distance": ("feature_distance", "{:.3f}", None),
}


def remarks(page: Path) -> str:
    """What a page says of an earlier run under the heading `LEARNT`, for people write that."""
    text = page.read_text() if page.exists() else ""
    return "\n" + text[text.index(LEARNT) :] if LEARNT in text else ""


def player_columns(lab: Lab) -> dict[str, Column]:
    """The columns of rows that play."""
    at, last = tuple(lab.horizons), max(lab.horizons)
    return {
        "ms a frame": ("ms_per_frame", "{:.1f}", None),
        "frames/s": ("frames_per_second", "{:.1f}", None),
        "calls": ("calls_per_frame", "{:.0f}", None),
        "parameters": ("parameters", "{:,.0f}", None),
        "MB": ("megabytes", "{:.1f}", None),
        "minutes": ("minutes", "{:g}", None),
        "training frames/s": ("training_frames_per_second", "{:.0f}", None),
        f"PSNR {' / '.join(map(str, at))}": ("psnr", "{:.2f}", at),
        f"sharpness {' / '.join(map(str, at))}": ("sharpness", "{:.2f}", at),
        f"feature distance {last}": ("feature_distance", "{:.3f}", (last,)),
        "returns": ("revisit_psnr", "{:.2f}", None),
    }


def _cells(found: dict[str, Any], columns: dict[str, Column]) -> list[str]:
    return [_cell(found, *column) for column in columns.values()]


def _cell(found: dict[str, Any], name: str, form: str, at: tuple[int, ...] | None) -> str:
    def told(values: Any, write: Callable[[float], str]) -> str:
        if at is None:
            return write(values)
        return " / ".join(write(values[str(h)]) if str(h) in values else "–" for h in at)

    if name not in found:
        return "–"
    text, ratio = told(found[name], form.format), found.get("ratio", {}).get(name)
    text = f"*{text}*" if "quality_of" in found and name in (*BY_FRAME, "revisit_psnr") else text
    return text if ratio is None else f"{text} (×{told(ratio, '{:.2f}'.format)})"


def _why(found: dict[str, Any]) -> str:
    """The reason, and what there is to say of the figures."""
    said = [found["why"]]
    said += [] if found["status"] == "measured" else ["**not run**"]
    said += [f"frames as those of {found['quality_of']}"] if "quality_of" in found else []
    said += [found["note"]] if "note" in found else []
    return "; ".join(said)
