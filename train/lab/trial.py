"""The short protocol by which a choice is judged: quality after the same minutes on this machine.

    python -m train trial configs/trials/maze.yaml [--only base muon] [--minutes 6] [--again]

Every candidate trains the dynamics for the same minutes, on the same latents, with the same seeds, in a process of its
own, then plays the same held-out episodes on. Of each: `RUNS/trials/NAME.json`, `NAME.png` (truth above, model below)
and `RUNS/trial-NAME/NAME.safetensors`, which `play.py` plays; for all, `RUNS/trials/table.md` and `table.png`.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from data_collect.errors import UserError
from data_collect.files import save_picture
from data_collect.shards.writer import write_atomic
from game_wm.evaluation.report.sheet import beside
from train.commands import tools
from train.lab.experiment import Experiment
from train.lab.protocol import Protocol, read
from train.lab.rows import choose, rows_of_trial
from train.lab.runs import TRAINING_FAILED
from train.lab.table import trial_table
from train.report.console import say
from train.report.machine import use_all_cores
from train.stages.configuration import read_yaml


def main(arguments: list[str]) -> int:
    """`python -m train trial`; exit status 1 when a candidate could not be trained."""
    options = tools.trial().parse_args(arguments)
    protocol: Protocol = read(Protocol, read_yaml(options.protocol), options.protocol)
    protocol.train_for(options.minutes)
    rows = rows_of_trial(protocol, options.protocol)
    chosen, folder = choose(protocol, rows, options.only), Path(protocol.runs, "trials")
    use_all_cores()
    experiment = Experiment(protocol, rows)
    for _ in experiment.carry_out(
        chosen, chosen if options.again else set()
    ):  # each may take hours: write what is known
        write_atomic(folder / "table.md", trial_table(protocol, experiment.finished))
    unfit = [reason for reason in experiment.failed.values() if reason != TRAINING_FAILED]
    if unfit and not experiment.finished:
        raise UserError(unfit[0])
    table = trial_table(protocol, experiment.finished)
    write_atomic(folder / "table.md", table)
    if experiment.finished:
        sheets = {name: Image.open(folder / f"{name}.png").convert("RGB") for name in experiment.finished}
        save_picture(folder / "table.png", beside(sheets, protocol.episodes))
    say(table)
    return int(bool(experiment.failed))
