"""What experiments write: the table of a trial; of a comparison one entry a row, and the page of tables.

text = trial_table(protocol, experiment.finished)
found = entry(protocol, row, outcome, timing, machine)  # one JSON object; figures that there are not are absent
add_ratios(found, default)                              # each figure over the default's, in the same run
text = markdown(protocol, entries, "efficiency")
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from train.lab.protocol import Protocol, Row
from train.lab.rows import FAMILIES
from train.lab.runs import Run
from train.lab.timing import BUSY_CORES
from train.report.machine import describe

REMARKS = "## What was learnt"
RETURN_AGES = ("65-256", "257-1024")  # of the one figure of the revisit suite
BY_HORIZON = ("psnr", "psnr_moving", "sharpness", "feature_distance")
FIGURES = ("ms_per_frame", "frames_per_second", "calls_per_frame", "parameters", "megabytes",
           "training_frames_per_second", *BY_HORIZON, "revisit_psnr", "reconstruction_psnr",
           "reconstruction_psnr_moving", "tokens_per_frame", "ms_to_decode")  # fmt: skip
QUALITY = {"psnr": "{:.2f}", "psnr_seen": "{:.2f}", "psnr_moving": "{:.2f}", "sharpness": "{:.2f}",
           "feature_distance": "{:.3f}"}  # fmt: skip
TRAINING = {  # head of the column: key of the result, format
    "parameters": ("parameters", "{:,}"),
    "GFLOP a frame": ("gflop_per_frame", "{:.2f}"),
    "steps": ("steps", "{}"),
    "samples/s": ("samples_per_second", "{:.1f}"),
    "machine GFLOP/s": ("machine_gflops", "{:.0f}"),
    "flow loss": ("flow", "{:.4f}"),
}


def trial_table(protocol: Protocol, finished: Mapping[str, Run]) -> str:
    """Markdown, one row a candidate; above them what needs no dynamics: each tokenizer's ceiling, the last frame."""
    outcomes = {name: run.outcome for name, run in finished.items()}
    # Of the revisit suite: the spans of its rollouts, PSNR by age.
    suites = [found["revisit"] for found in outcomes.values() if found.get("revisit")]
    spans = sorted({span for suite in suites for span in suite})
    ages = list(dict.fromkeys(age for suite in suites for s in spans for age in suite.get(s, {}).get("psnr", {})))

    def returns(suite: dict[str, Any]) -> list[str]:
        found = (suite.get(span, {}).get("psnr", {}) for span in spans)
        return [" / ".join(f"{psnr[age]:.1f}" if age in psnr else "–" for age in ages) for psnr in found]

    at = " / ".join(map(str, protocol.horizons))
    head = ["candidate", "why", *TRAINING, *(f"{name.replace('_', ' ')} {at}" for name in QUALITY)]
    head += [f"returns {span}, PSNR at ages {', '.join(ages)}" for span in spans]
    above, rows = dict[str, list[str]](), []
    for candidate in protocol.candidates:
        if found := outcomes.get(candidate.name):
            quality, blank = found["fidelity"], [""] * (1 + len(TRAINING))
            ceiling = f"*ceiling of {candidate.tokenizer or protocol.tokenizer}*"
            above["*repeat the last frame*"] = [*blank, *_quality(protocol, quality, "repeat_"), *[""] * len(spans)]
            above[ceiling] = [*blank, *_quality(protocol, quality, "ceiling_"), *[""] * len(spans)]
            figures = ["–" if found[k] is None else form.format(found[k]) for k, form in TRAINING.values()]
            cells = [*figures, *_quality(protocol, quality), *returns(found.get("revisit", {}))]
            rows.append([candidate.name, candidate.why, *cells])
        else:
            rows.append([candidate.name, f"{candidate.why} (not run)", *["–"] * (len(head) - 2)])
    text = f"{protocol.minutes:g} minutes each on {describe(torch.device('cpu'))}, latents {protocol.latents}; "
    text += f"{protocol.episodes} held-out episodes, {protocol.steps} denoiser call(s) a frame.\n\n"
    return text + _markdown_table(head, [*([name, *row] for name, row in above.items()), *rows])


def _quality(protocol: Protocol, fidelity: dict[str, Any], prefix: str = "") -> list[str]:
    row = []
    for name, form in QUALITY.items():
        value = fidelity.get(prefix + name, {})  # one figure for all horizons, or one each
        values = [value.get(str(h)) if isinstance(value, dict) else value for h in protocol.horizons]
        row.append(" / ".join("–" if v is None else form.format(v) for v in values))
    return row


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def entry(
    protocol: Protocol, row: Row, outcome: dict[str, Any] | None, timing: dict[str, Any], machine: dict[str, Any]
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
    sample = {**machine, "minutes_a_row": protocol.minutes, "episodes": protocol.episodes, "prompt": protocol.prompt}
    sample["frames_timed"] = protocol.timed
    if tokenizer:
        names = (
            "reconstruction_psnr",
            "reconstruction_psnr_moving",
            "sharpness",
            "feature_distance",
            "tokens_per_frame",
        )
        found |= {name: outcome[name] for name in names if name in outcome} | {"sample": sample}
        return found | _ratio_in_turn(timing, "ms_to_decode")
    fidelity = outcome["fidelity"]
    found |= {name: fidelity[name] for name in BY_HORIZON if name in fidelity}
    found["interval"] = {name: fidelity[f"{name}_interval"] for name in BY_HORIZON if name in fidelity}
    suites = [suite["psnr"] for suite in outcome["revisit"].values()]
    returned = [psnr[age] for psnr in suites for age in RETURN_AGES if age in psnr]
    found |= {"revisit_psnr": statistics.fmean(returned)} if returned else {}
    found |= {"quality_of": outcome["quality_of"]} if "quality_of" in outcome else {}
    revisit = {"mazes": protocol.revisit, "revisit_prompts": list(protocol.prompts)} if protocol.revisit else {}
    return found | {"sample": sample | revisit} | _ratio_in_turn(timing, "ms_per_frame")


def _ratio_in_turn(timing: dict[str, Any], name: str) -> dict[str, Any]:
    """The ratio of two times that were measured in turn, which is not that of the two entries."""
    return {"ratio": {name: timing["ratio"]}} if "ratio" in timing else {}


def add_ratios(found: dict[str, Any], default: dict[str, Any] | None) -> None:
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


def markdown(protocol: Protocol, entries: Sequence[dict[str, Any]], plot: str | None) -> str:
    """Tables, a family each, with the default on top; above them, what they mean and how they are made."""
    sample = next(found["sample"] for found in entries if "sample" in found)
    at, mazes = " / ".join(map(str, protocol.horizons)), protocol.revisit
    busy = sample.get("cores_in_use_by_others")
    meanwhile = "" if busy is None else f", while other programs kept {busy:.1f} cores busy"
    returns = (
        "*Returns*: PSNR of what was last on screen 65 to 1,024 frames ago, the mean of both ages and both spans of "
        f"the suite revisit, {mazes} mazes, prompts of {', '.join(map(str, protocol.prompts))} frames. "
    )
    lines = [
        "# Methods side by side",
        f"`python -m game_wm compare {Path(entries[0]['config']).parent}/*.yaml` trains, judges and times every row "
        "and writes this page: [how to run it](how-to/compare.md).",
        f"**Training.** {protocol.minutes:g} minutes for each row that trains, on {protocol.latents}; a row that "
        "starts from another one has the minutes of that one too, and the column counts all of them.",
        f"**Sample.** {protocol.episodes} held-out episodes, {protocol.prompt} real frames each, then free rollouts. "
        f"PSNR (dB), sharpness (1 is that of the tokenised truth) and feature distance after {at} frames. "
        f"{returns * bool(mazes)}So small a sample tells large differences alone; intervals stand in the JSON file.",
        f"**Times.** Medians of at most {protocol.timed} frames of the model alone, in turn with the default's, on "
        f"{sample['machine']}{meanwhile}"
        + (": **not to be relied on**. " if (busy or 0) > BUSY_CORES else ". ")
        + "*frames/s* counts the frames of all players; MB are those of the weights as they are played.",
        "In brackets every figure over the default's, ×0.50 being half. In italics: a row whose frames are those of "
        "the row that it starts from, made in another way, has the figures of that one.",
    ]
    if plot:
        lines.append(f"![quality against milliseconds]({plot}.png)")
    for family in FAMILIES:
        rows = [found for found in entries if found["family"] == family]
        default = protocol.default_of(family)
        rows = [f for f in entries if f["name"] == default] * bool(rows) + [f for f in rows if f["name"] != default]
        if rows:
            columns = TOKENIZER if family == "tokenizer" else player_columns(protocol)
            head = ["row", "method", *columns, "why"]
            cells = [
                [found["name"], found["method"], *(_cell(found, *column) for column in columns.values()), _why(found)]
                for found in rows
            ]
            lines.append(f"## {family.capitalize()}\n\n{_markdown_table(head, cells).rstrip()}")
    return "\n\n".join(lines) + "\n"


Column = tuple[str, str, tuple[int, ...] | None]  # figure, format, frames after which, if it is one for each
COST: dict[str, Column] = {
    "parameters": ("parameters", "{:,.0f}", None),
    "MB": ("megabytes", "{:.1f}", None),
    "minutes": ("minutes", "{:g}", None),
    "training frames/s": ("training_frames_per_second", "{:.0f}", None),
}
TOKENIZER: dict[str, Column] = {
    "ms to decode": ("ms_to_decode", "{:.2f}", None),
    "tokens a frame": ("tokens_per_frame", "{:.0f}", None),
    **COST,
    "reconstruction, dB": ("reconstruction_psnr", "{:.2f}", None),
    "where something moves": ("reconstruction_psnr_moving", "{:.2f}", None),
    "sharpness": ("sharpness", "{:.2f}", None),
    "feature distance": ("feature_distance", "{:.3f}", None),
}


def kept_remarks(page: Path) -> str:
    """What people have written under the heading `REMARKS` of an earlier page."""
    text = page.read_text() if page.exists() else ""
    return "\n" + text[text.index(REMARKS) :] if REMARKS in text else ""


def player_columns(protocol: Protocol) -> dict[str, Column]:
    at, last = tuple(protocol.horizons), max(protocol.horizons)
    return {
        "ms a frame": ("ms_per_frame", "{:.1f}", None),
        "frames/s": ("frames_per_second", "{:.1f}", None),
        "calls": ("calls_per_frame", "{:.0f}", None),
        **COST,
        f"PSNR {' / '.join(map(str, at))}": ("psnr", "{:.2f}", at),
        "where something moves": ("psnr_moving", "{:.2f}", at),
        f"sharpness {' / '.join(map(str, at))}": ("sharpness", "{:.2f}", at),
        f"feature distance {last}": ("feature_distance", "{:.3f}", (last,)),
        "returns": ("revisit_psnr", "{:.2f}", None),
    }


def _cell(found: dict[str, Any], name: str, form: str, at: tuple[int, ...] | None) -> str:
    def written(values: Any, write: Callable[[float], str]) -> str:
        if at is None:
            return write(values)
        return " / ".join(write(values[str(h)]) if str(h) in values else "–" for h in at)

    if name not in found:
        return "–"
    text, ratio = written(found[name], form.format), found.get("ratio", {}).get(name)
    text = f"*{text}*" if "quality_of" in found and name in (*BY_HORIZON, "revisit_psnr") else text
    return text if ratio is None else f"{text} (×{written(ratio, '{:.2f}'.format)})"


def _why(found: dict[str, Any]) -> str:
    """What it is tried for, and remarks on its figures."""
    remarks = [found["why"]]
    remarks += [] if found["status"] == "measured" else ["**not run**"]
    remarks += [f"frames as those of {found['quality_of']}"] if "quality_of" in found else []
    remarks += [found["note"]] if "note" in found else []
    return "; ".join(remarks)
