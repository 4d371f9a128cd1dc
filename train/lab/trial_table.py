"""The table of a protocol's candidates, losers included.

text = table(protocol, {"base": json.loads(Path("runs/trials/base.json").read_text())})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from train.report.machine import describe

if TYPE_CHECKING:
    from train.lab.trial import Protocol

MEASURES = {"psnr": "{:.2f}", "psnr_seen": "{:.2f}", "sharpness": "{:.2f}", "feature_distance": "{:.3f}"}
TRAINING = {  # head of the column: key of the result, format
    "parameters": ("parameters", "{:,}"),
    "GFLOP a frame": ("gflop_per_frame", "{:.2f}"),
    "steps": ("steps", "{}"),
    "samples/s": ("samples_per_second", "{:.1f}"),
    "machine GFLOP/s": ("machine_gflops", "{:.0f}"),
    "flow loss": ("flow", "{:.4f}"),
}


def table(protocol: Protocol, results: dict[str, dict[str, Any]]) -> str:
    """Markdown, one row a candidate; above them what needs no dynamics: each tokenizer's ceiling, the last frame."""

    def cells(fidelity: dict[str, Any], prefix: str = "") -> list[str]:
        row = []
        for name, form in MEASURES.items():
            value = fidelity.get(prefix + name, {})  # one figure for all horizons, or one each
            values = [value.get(str(h)) if isinstance(value, dict) else value for h in protocol.horizons]
            row.append(" / ".join("–" if v is None else form.format(v) for v in values))
        return row

    def by_age(card: dict[str, Any]) -> list[str]:
        found = (card.get(name, {}).get("psnr", {}) for name in returns)
        return [" / ".join(f"{psnr[age]:.1f}" if age in psnr else "–" for age in ages) for psnr in found]

    # Of the revisit suite: the spans of its rollouts, PSNR by age.
    cards = [found["revisit"] for found in results.values() if found.get("revisit")]
    returns = sorted({name for card in cards for name in card})
    ages = list(dict.fromkeys(age for card in cards for name in returns for age in card.get(name, {}).get("psnr", {})))
    frames = " / ".join(map(str, protocol.horizons))
    head = ["candidate", "why", *TRAINING, *(f"{name.replace('_', ' ')} {frames}" for name in MEASURES)]
    head += [f"returns {name}, PSNR at ages {', '.join(ages)}" for name in returns]
    above, rows = dict[str, list[str]](), []
    for candidate in protocol.candidates:
        if found := results.get(candidate.name):
            blank = [""] * (1 + len(TRAINING))
            ceiling = f"*ceiling of {candidate.tokenizer or protocol.tokenizer}*"
            above["*repeat the last frame*"] = [*blank, *cells(found["fidelity"], "repeat_"), *[""] * len(returns)]
            above[ceiling] = [*blank, *cells(found["fidelity"], "ceiling_"), *[""] * len(returns)]
            figures = ["–" if found[k] is None else form.format(found[k]) for k, form in TRAINING.values()]
            rows.append(
                [candidate.name, candidate.why, *figures, *cells(found["fidelity"]), *by_age(found.get("revisit", {}))]
            )
        else:
            rows.append([candidate.name, f"{candidate.why} (not run)", *["–"] * (len(head) - 2)])
    rows = [head, ["---"] * len(head), *([name, *row] for name, row in above.items()), *rows]
    text = f"{protocol.minutes:g} minutes each on {describe(torch.device('cpu'))}, latents {protocol.latents}; "
    text += f"{protocol.episodes} held-out episodes, {protocol.steps} denoiser call(s) a frame.\n\n"
    return text + "".join(f"| {' | '.join(row)} |\n" for row in rows)
