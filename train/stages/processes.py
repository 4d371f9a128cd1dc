"""The processes that train together: who has started them, how many they are, and what they agree on.

    arguments |= launched(arguments)            # devices and machines for `pl.Trainer`, as torchrun or srun has them
    [seconds] = agreed(trainer, seconds)        # the same in all of them

Each reads its own batches and has its own clock, but all of them must decide alike: a process that stops, saves or
lowers its learning rate at another step than the others leaves them waiting, or its weights differ from theirs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from data_collect.errors import UserError

# What says how many processes were started together: torchrun, Ray and Kubernetes; srun; Open MPI; other MPIs.
COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
ONE_EACH = (1, "1", -1, "-1", "auto")  # of `--trainer.devices`: what leaves the number of processes to who starts them
HOW = "start them with torchrun or srun (docs/how-to/cluster.md)"


def launched(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """`devices`, `num_nodes` and plugins of a trainer whose processes were started from outside, by torchrun, srun or
    anything else that sets RANK, LOCAL_RANK and WORLD_SIZE; {} where none were. `UserError`: it was told otherwise."""
    env, plugins = os.environ, list(trainer.get("plugins") or [])
    if TorchElasticEnvironment.detect() or {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= env.keys():
        world = int(env["WORLD_SIZE"])
        each, plugins = int(env.get("LOCAL_WORLD_SIZE", world)), [*plugins, TorchElasticEnvironment()]
    elif SLURMEnvironment.detect():
        world = int(env["SLURM_NTASKS"])
        each = -(-world // int(env.get("SLURM_NNODES", 1)))
    else:
        return {}
    machines, devices, nodes = world // each, trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if machines * each != world:
        raise UserError(f"{world} processes are not as many on each machine: {HOW}, the same number on each")
    if (devices not in ONE_EACH and str(devices) != str(each)) or nodes not in (1, machines):
        raise UserError(
            f"--trainer.devices {devices} and --trainer.num_nodes {nodes} are not what was started, {each} on each "
            f"machine, machines {machines}: leave both out"
        )
    return {"devices": each, "num_nodes": machines, "plugins": plugins}


def check_alone() -> None:
    """`UserError` where several processes were started to run a pipeline."""
    found = launched({})
    if found.get("devices", 1) * found.get("num_nodes", 1) > 1:
        raise UserError(
            "a pipeline starts the processes of its stages itself: start one alone, with --dynamics.trainer.devices 2 "
            "where two shall train together"
        )


def check_world(trainer: pl.Trainer) -> None:
    """`UserError` where more or fewer processes were started than the trainer knows of: they would train the same thing
    and write to the same files, or wait for each other without end."""
    for name in COUNTS:
        count = os.environ.get(name, "")
        if name == "SLURM_NTASKS" and not SLURMEnvironment.detect():
            continue
        if count.isdecimal() and int(count) != trainer.world_size:
            raise UserError(
                f"{name} says that {count} processes were started, but {trainer.world_size} would train together: "
                f"{HOW}, or start one alone with {name} unset"
            )


def agreed(trainer: pl.Trainer, *values: float) -> list[float]:
    """Of each value the largest that any of the processes has."""
    if trainer.world_size == 1:
        return list(values)
    largest = torch.tensor(values, dtype=torch.float64, device=trainer.strategy.root_device)
    return trainer.strategy.reduce(largest, reduce_op="max").tolist()
