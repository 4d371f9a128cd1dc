"""Processes that train together, for tests: started once, they do what they are told on as many of them as it takes.

with Ranks(3) as ranks:
    told = ranks.train(["--steps", "4", ...], count=2)      # what each has seen
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from data_collect.guest.child import Child

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK",
             "GROUP_RANK", "SLURM_JOB_NAME", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_NNODES", "SLURM_NTASKS_PER_NODE",
             "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NODELIST")  # fmt: skip


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def started_by(who: str, rank: int, count: int, port: str) -> dict[str, str]:
    """The variables that a launcher sets: torchrun on one machine; srun on as many as there are tasks; none."""
    if who == "torchrun":
        return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
    if who == "srun":
        return {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_NTASKS": str(count), "SLURM_NNODES": str(count),
                "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0",
                "SLURM_NODEID": str(rank), "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
    return {}


class Ranks:
    """So many processes."""

    def __init__(self, count: int) -> None:
        self.children = [Child("tests.ranks:serve", {"OMP_NUM_THREADS": "1"}) for _ in range(count)]

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.end()

    def train(self, flags: Sequence[str], count: int, who: str = "torchrun", **options: Any) -> list[SimpleNamespace]:
        """Train dynamics with these flags on the first `count`; see `make_probe` for what comes back and the options.
        An error that is no `UserError` is raised as AssertionError."""
        port = free_port()
        for rank, child in enumerate(self.children[:count]):
            child.pipe.send((started_by(who if count > 1 else "", rank, count, port), list(flags), rank, options))
        told = [child.pipe.recv() for child in self.children[:count]]
        for each in told:
            assert not isinstance(each, str), each
        return [SimpleNamespace(**each) for each in told]


# --- in a process -----------------------------------------------------------------------------------------------------


def serve(pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(train(*job))
        except Exception:
            pipe.send(traceback.format_exc())


def train(variables: dict[str, str], flags: list[str], rank: int, options: dict[str, Any]) -> dict[str, Any]:
    from pytest import MonkeyPatch
    from torch import distributed

    from data_collect.errors import UserError
    from train.stages import cli

    probe = make_probe(rank, **options)
    with MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr("train.stages.cli.Bar", lambda *_: probe)
        if probe.pace:
            clock = SimpleNamespace(monotonic=lambda: 1 + probe.steps * probe.pace)
            patch.setattr("train.stages.callbacks.time", clock)
        try:
            probe.told["status"] = cli.run_stage("dynamics", flags)
        except UserError as error:
            probe.told["error"] = str(error)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()
    return probe.told


def make_probe(rank: int, pace: Sequence[float] = (), signals: Mapping[int, int] = {}, gradients: bool = False) -> Any:
    """A callback that notes what this process trains on. `pace`: seconds a step by this rank's clock; `signals`: the
    step at which this rank gets SIGTERM; `gradients`: note those of every step."""
    import torch
    from lightning.pytorch.callbacks import Callback

    class Probe(Callback):
        def __init__(self) -> None:
            self.pace, self.steps = pace[rank] if pace else 0.0, 0
            self.told: dict[str, Any] = {"status": None, "error": "", "windows": [], "rates": [], "gradients": []}

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            self.steps += 1
            self.told["windows"].append(list(zip(batch["episode"].tolist(), batch["start"].tolist())))
            self.told["rates"].append(trainer.optimizers[0].param_groups[0]["lr"])
            if signals.get(rank) == trainer.global_step:
                os.kill(os.getpid(), signal.SIGTERM)

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            if gradients:
                self.told["gradients"].append([p.grad.numpy().copy() for p in module.parameters()])

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self.told |= {"step": trainer.global_step, "rank": trainer.global_rank, "world": trainer.world_size}
            digest = hashlib.sha256()
            for value in module.state_dict().values():
                digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self.told["weights"] = digest.hexdigest()

    return Probe()
