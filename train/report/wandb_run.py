"""A run's figures and samples at Weights & Biases: `--wandb offline` (default), `online` or `off`.

Whatever goes wrong there (no login, no home, a broken installation, a process that dies, a full disk) is said in one
line, and training goes on without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_collect.errors import UserError
from train.report.console import warn
from train.report.figures import RunLogger

STEP = "trainer/global_step"
FINISH_SECONDS = 120  # for what is not uploaded yet at the end of a run


def wandb_run(folder: Path, project: str, mode: str, config: dict[str, Any], run_id: str) -> list[WandbRun]:
    """The logger in a list, or none where it is off. The environment's WANDB_MODE wins over `mode`. A run
    that has this id goes on."""
    if mode not in ("offline", "online", "off"):
        raise UserError(f"--wandb takes offline, online or off, not {mode}")
    mode = os.environ.get("WANDB_MODE") or mode
    return [WandbRun(folder, project, mode, config, run_id)] if mode not in ("off", "disabled") else []


class WandbRun(RunLogger):
    """One run, begun at once; nothing in it raises."""

    def __init__(self, folder: Path, project: str, mode: str, config: dict[str, Any], run_id: str) -> None:
        super().__init__(folder)
        self.run: Any = None
        os.environ.setdefault("WANDB_SILENT", "true")
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline means that nothing leaves the machine
        about = {"project": project, "name": folder.name, "dir": str(folder), "mode": mode, "config": config}
        about |= {"id": run_id, "resume": "allow"} if mode == "online" else {"id": run_id}
        self._try(lambda: self._begin(about))

    def _begin(self, about: dict[str, Any]) -> None:
        import wandb

        settings = wandb.Settings(console="off", finish_timeout=FINISH_SECONDS, finish_timeout_raises=True)
        self.run = wandb.init(**about, settings=settings)
        for handler in logging.getLogger("wandb").handlers:  # on a full disk each of its own lines would be a traceback
            handler.setLevel(logging.CRITICAL + 1)
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP, step_sync=True)

    def _try(self, work: Callable[[], Any]) -> None:
        """Do it; after any error say so, once, and do nothing more."""
        try:
            work()
        except Exception as error:  # of an extra that must never end a training
            self.run = None
            with contextlib.suppress(Exception):
                sys.modules["wandb"].teardown()  # or it would try again, and fail loudly, when the program ends
            why = str(error).strip().splitlines()
            told = f"{type(error).__name__}: {why[0]}" if why else type(error).__name__
            figures = f"all figures are in {self.folder / 'metrics.jsonl'}; --wandb off leaves it out"
            warn(f"Weights & Biases does not work ({told}): training goes on, and {figures}")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if (run := self.run) is not None:
            self._try(lambda: run.log({**metrics, STEP: step}))

    def log_samples(self, picture: np.ndarray, video: Path | None, step: int) -> None:
        """A sample's picture, uint8 (H, W, 3), and its film, if it has one."""
        if (run := self.run) is None:
            return

        def log() -> None:
            import wandb

            films = {"video": wandb.Video(str(video), format="mp4")} if video else {}
            run.log({"samples": wandb.Image(picture), **films, STEP: step})

        self._try(log)

    def end(self) -> None:
        """Close the run, or the pipeline's next stage would write into it."""
        if (run := self.run) is not None:
            self._try(run.finish)
