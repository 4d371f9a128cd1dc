"""The model card as a page, NAME.md: what people read of NAME.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from game_wm.evaluation.metrics import PSNR_CAP
from game_wm.evaluation.report.ages import AGES
from game_wm.evaluation.report.card import SUITES

# What the pictures of a suite show, by what follows NAME and a hyphen.
PICTURES = {
    "revisit": {"revisit": "quality against age", "returns": "returns: truth, this model, window only"},
    "dream": {"ways": "there, and below it back at the same places"},
}


def markdown(card: Mapping[str, Any], path: Path) -> str:
    """The card as a page, beside its file and the pictures of the same name."""
    trained = card.get("trained", {})
    lines = [f"# {card['checkpoint']}", ""]
    facts = {
        "game": f"`{card['game']}`", "parameters": f"{card['parameters'] / 1e6:.2f} million",
        "tokens per frame": card.get("tokens_per_frame"), "denoiser calls per frame": card["calls_per_frame"],
        "trained": ", ".join(f"{k} {v}" for k, v in trained.items() if not isinstance(v, dict)),
        "known before play": card.get("atlas"), "teacher": card.get("teacher"), "seeds": card.get("seeds"),
        "pictures": card.get("notice"),
    }  # fmt: skip
    lines += [f"- {name}: {value}" for name, value in facts.items() if value not in (None, "")]
    lines += ["", "Measured on seeds that training never saw, against the real game under the same random actions. "
              "± is half the 95 % bootstrap interval over episodes.", ""]  # fmt: skip
    sheet = path.with_suffix(".png")
    if "command" in card:
        lines += ["Regenerate it with:", "", f"    {card['command']}", ""]
    if "fidelity" in card and sheet.exists():
        lines += [f"![truth above, dream below]({sheet.name})", ""]
    for suite in SUITES:
        if suite not in card:
            continue
        lines += section(card, suite)
        if suite == "revisit" or "there_and_back_psnr" in card[suite]:
            pictures = PICTURES[suite].items()
            lines += [line for name, told in pictures for line in (f"![{told}]({path.stem}-{name}.png)", "")]
    return "\n".join(lines)


def section(card: Mapping[str, Any], suite: str) -> list[str]:
    """Lines of a page that show the figures of one suite."""
    pages = {
        "fidelity": _fidelity, "sprites": _sprites, "control": _control, "stability": _stability, "revisit": _revisit,
        "dream": _dream, "cost": _cost,
    }  # fmt: skip
    return [f"## {suite.capitalize()}", "", *pages[suite](card), *_lead(card[suite]), *_faults(card[suite]), ""]


def _lead(figures: Mapping[str, Any]) -> list[str]:
    """How real play was led where episodes are too short for the usual way."""
    if "lead" not in figures:
        return []
    lead = figures["lead"]
    least, most = lead["warm_up"]
    return ["", f"Episodes are short: dreams begin after {least} to {most} steps and a prompt of {lead['prompt']} "
            f"frames, and at most {lead['frames']} frames are compared."]  # fmt: skip


def _faults(figures: Mapping[str, Any]) -> list[str]:
    if "faults" not in figures:
        return []
    failed, plays = figures["faults"]["failed"], figures["faults"]["plays"]
    return ["", f"In {failed} of {plays} plays the real game failed; they count as far as they went."]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _with_interval(holder: Mapping[str, Any], name: str, key: str | None = None, digits: int = 2) -> str:
    """The figure ± half its interval; alone where it lies outside, as Fréchet distances of older cards do."""
    value, interval = holder.get(name), holder.get(f"{name}_interval")
    if key is not None:
        value, interval = (value or {}).get(key), (interval or {}).get(key)
    if value is None:
        return "–"
    low, high = interval or (math.inf, -math.inf)
    return f"{value:.{digits}f}" + (f" ± {(high - low) / 2:.{digits}f}" if low <= value <= high else "")


def _fidelity(card: Mapping[str, Any]) -> list[str]:
    figures = card["fidelity"]
    horizons = list(figures["psnr"])
    rows = {
        "PSNR, dB": ("psnr", 2), "PSNR on surfaces just seen, dB": ("psnr_seen", 2),
        "PSNR where something moves, dB": ("psnr_moving", 2), "SSIM": ("ssim", 3),
        "feature distance": ("feature_distance", 3), "sharpness": ("sharpness", 3),
        "tokenizer's PSNR on surfaces just seen, dB": ("ceiling_psnr_seen", 2),
        "tokenizer's PSNR where something moves, dB": ("ceiling_psnr_moving", 2),
        "repeat the last frame: PSNR, dB": ("repeat_psnr", 2),
        "repeat the last frame: PSNR where something moves, dB": ("repeat_psnr_moving", 2),
        "repeat the last frame: feature distance": ("repeat_feature_distance", 3),
    }  # fmt: skip
    body = [
        [title, *(_with_interval(figures, name, h, digits) for h in horizons)]
        for title, (name, digits) in rows.items()
        if name in figures
    ]
    ceiling = figures.get("ceiling_sharpness")
    sharp = "" if ceiling is None else f" and {ceiling:.3f} of the truth's sharpness"
    lines = [
        f"Free rollout from {figures['prompt_frames']} real frames, {figures['episodes']} episodes. "
        f"{figures['protocol']}",
        "",
        *table(["frame", *horizons], body),
        "",
        f"The tokenizer alone reaches {figures['ceiling_psnr']:.2f} dB, a feature distance of "
        f"{figures['ceiling_feature_distance']:.3f}{sharp}. PSNR is that of the mean squared error over all pixels of "
        "all episodes; an error below one grey level counts as one, so equal pictures have "
        f"{PSNR_CAP:.1f} dB. Feature distance: EfficientNet-Lite0 features, less is better. Sharpness: 1 is as sharp "
        "as the tokenizer's picture of the truth.",
    ]
    body = []
    for name in ("reward", "termination"):
        if found := card.get(name):
            cells = [f"{found[k]:.3f}" if k in found else "–" for k in ("accuracy", "recall", "precision")]
            body.append([name, *cells, str(found["events"]), str(found["frames"])])
    if body:
        lines += ["", *table(["prediction", "accuracy", "recall", "precision", "real events", "frames"], body)]
    return lines


def _sprites(card: Mapping[str, Any]) -> list[str]:
    figures = card["sprites"]
    spans = list(dict.fromkeys(span for found in figures.values() for span in found["error"]))
    rows = [
        [name, *(f"{found[side]:.3f}" for side in ("game", "dream")),
         *(_with_interval(found, key, None, 3) for key in ("kept", "tokenised", "follows")),
         *(_with_interval(found, "error", span) for span in spans)]
        for name, found in figures.items()
    ]  # fmt: skip
    return [
        "Share of frames 1 to 64 of free rollouts that have a sprite, by a detector of its colour; kept: in the dream, "
        "of the frames that have it in the game; tokenised: of those frames sent through the tokenizer; follows: of "
        "the steps on which it moves in the game, those on which it moves the same way in the dream. Then its distance "
        "from where the game has it, in pixels.",
        "",
        *table(["sprite", "game", "dream", "kept", "tokenised", "follows", *(f"frames {s}" for s in spans)], rows),
    ]


def _control(card: Mapping[str, Any]) -> list[str]:
    figures = card["control"]
    rows = [["whole action", *(_with_interval(figures, k, None, 3) for k in ("real", "dream"))]]
    rows += [[n, f"{v['real']:.3f}", f"{v['dream']:.3f}"] for n, v in figures.get("parts", {}).items()]
    chance = f" Always naming the commonest action gets {figures['chance']:.3f}." if "chance" in figures else ""
    names = f" Actions that look alike count as one: {figures['names']} are told apart." if "names" in figures else ""
    ratios = "Real frames do not tell the actions apart here, so the dream's share says nothing."
    if "ratio" in figures:
        ratios = (
            f"Dream over real: {_with_interval(figures, 'ratio', None, 3)}; tokenised real frames over real: "
            f"{_with_interval(figures, 'tokenised_ratio', None, 3)}."
        )
    return [
        "Share of random actions that an inverse-dynamics network, trained on real frames, names rightly. "
        f"{ratios}{chance}{names}",
        "",
        *table(["action", "real frames", "dreamt frames"], rows),
    ]


def _stability(card: Mapping[str, Any]) -> list[str]:
    figures = card["stability"]
    titles = {"real_real": "real against real", "start": "dream, start", "middle": "dream, middle", "end": "dream, end"}
    rows = []
    for key, title in titles.items():
        frechet = figures.get(key if key == "real_real" else f"frechet_{key}")
        if frechet is not None:
            rows.append([title, f"{frechet:.1f}", _with_interval(figures, f"kernel_{key}", None, 3)])
    judged = any(key.startswith("kernel_") for key in figures)
    header, rows = ["", "Fréchet distance", *["kernel distance"] * judged], [row[: 2 + judged] for row in rows]
    so_far = f", {figures['dreamt']:,} of them dreamt so far" if "dreamt" in figures else ""
    lines = [
        f"{figures['dreams']} dreams of {figures['frames']:,} frames{so_far}. Distances of EfficientNet-Lite0 features "
        "from real play: less is better. The Fréchet distance is above 0 for real play too, since the samples are small"
        + ("; the kernel distance is 0 where nothing tells the two apart (± leaves out a dream at a time)" * judged)
        + ".",
        "",
        *table(header, rows),
    ]
    if "kernel_end_over_real" in figures:
        excess = _with_interval(figures, "kernel_end_over_real", None, 3)
        lines += ["", f"At the end, a dream is {excess} further from real play than the real game is."]
    if "idle_psnr" in figures:
        lines += ["", f"Standing still for {figures['idle_frames']:,} frames: the last is at "
                  f"{_with_interval(figures, 'idle_psnr')} dB from the first."]  # fmt: skip
    return lines


def _revisit(card: Mapping[str, Any]) -> list[str]:
    figures = card["revisit"]
    ages = [age for age in AGES if any(age in entry.get("psnr", {}) for entry in figures.values())]
    buttons = " or ".join(f"`{name}`" for name in next(iter(figures.values())).get("held", ())) or "a turn"
    lines = [
        "Quality of a free rollout by the age of what comes into view: frames since the surface was last on screen in "
        f"the prompt. The rollouts hold {buttons} or follow the explorer.",
    ]
    for key, title, digits in (("psnr", "PSNR, dB", 2), ("feature_distance", "feature distance", 3)):
        rows = []
        for prompt, entry in figures.items():
            where = "prompt {}, frames {}".format(*prompt.split("/"))
            rows.append([where, *(_with_interval(entry, key, age, digits) for age in ages)])
            if window := entry.get("window_only"):
                rows.append([f"{where}: window only", *(_with_interval(window, key, age, digits) for age in ages)])
            if key == "psnr":
                rows.append([f"{where}: tokenizer", *(_with_interval(entry, "ceiling_psnr", age) for age in ages)])
                rows.append([f"{where}: mazes", *(str(entry["mazes"].get(age, "–")) for age in ages)])
        lines += ["", *table([title, *ages], rows)]
    return lines


def _dream(card: Mapping[str, Any]) -> list[str]:
    figures, rows = card["dream"], []
    if "turn_round_runs" in figures:
        cells = [_with_interval(figures, f"turn_round_{key}") for key in ("psnr", "counted")]
        rows.append(["turned round once", *cells, str(figures["turn_round_runs"])])
    for length, runs in figures.get("there_and_back_runs", {}).items():
        cells = [_with_interval(figures, f"there_and_back_{key}", length) for key in ("psnr", "counted")]
        rows.append([f"there and back, {int(length):,} frames", *cells, str(runs)])
    lines = [
        "The dream's last frame against the frame before it set out. A run counts if the dream changes on the way as "
        "much as the real game does and at least 90 % of its actions can be named. There and back is led in the dream, "
        "where nothing is in the way.",
        "",
        *table(["", "PSNR, dB", "share that counts", "runs"], rows),
    ]
    kinds = {"detector": "gem", "pushed_detector": "pushed thing's"}
    if any(key in figures for key in kinds):
        titles = (
            ("taken_stays_taken", "a gem taken stays taken"), ("untouched_stays", "an untouched gem is still there"),
            ("pushed_stays_pushed", "what was pushed stays there"),
        )  # fmt: skip
        body = [
            [title, _with_interval(figures, key, None, 3), f"{figures.get(f'{key}_counted', 0):.3f}",
             str(figures.get(f"{key}_runs", 0))]
            for key, title in titles if key != "pushed_stays_pushed" or "pushed_detector" in figures
        ]  # fmt: skip
        lines += [
            "",
            *table(["", "share", "share that counts", "runs"], body),
            *(
                f"\nThe {what} detector is right on {100 * figures[key]:.1f} % of real frames that it never saw, "
                f"on {100 * figures[f'{key}_tokenised']:.1f} % of them sent through the tokenizer."
                for key, what in kinds.items() if key in figures
            ),
        ]  # fmt: skip
    return lines


def _cost(card: Mapping[str, Any]) -> list[str]:
    titles = {
        "fps_median": "frames per second, median", "p50_ms": "a frame, median, ms", "p95_ms": "a frame, 95 %, ms",
        "p50_ms_first": "the first 200 frames, median, ms", "p50_ms_last": "the last 200 frames, median, ms",
        "rss_mb_first": "memory at the start, MB", "rss_mb_last": "memory at the end, MB",
        "first_frame_s": "first frame after, s", "state_mb_first": "state of a player at the start, MB",
        "state_mb": "state of a player, MB", "frames": "frames counted", "device": "device",
        "p50_ms_without_memory": "a frame of the same network without long memory, median, ms",
        "times_without_memory": "a frame with it, times as long, in turn",
    }  # fmt: skip
    figures = card["cost"]
    return table(["", ""], [[title, str(figures[key])] for key, title in titles.items() if key in figures])
