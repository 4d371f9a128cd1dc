"""The parts of `python -m game_wm bench gpu`: each gives rows of figures as it measures them.

What cannot be measured is a row as well, with the reason (`why`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from data_collect import system
from data_collect.errors import UserError
from game_wm import acceleration
from game_wm.acceleration import precision
from game_wm.acceleration.graphs import GraphPlayer
from game_wm.checkpoint import load
from game_wm.deadline import Deadline
from game_wm.doctor import installed
from game_wm.model.tokenizer import Tokenizer
from game_wm.world import WorldConfig, WorldModel
from train.data.encode import Encoder
from train.lab.bench.launches import Launches
from train.lab.sizes.ladder import TRAINED, Rung, count_frame, count_training, module_of, read_rung
from train.lab.sizes.measure import median_seconds, training_rate
from train.lab.sizes.roofline import GIB, measured
from train.report.machine import MatrixRate, describe

PACKAGES = ("torch", "torchvision", "triton", "lightning", "timm", "numpy")
PROFILED = 5  # frames
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What is measured, where, and until when. `sizes`: files as those in configs/sizes; `frames`: (width, height)."""

    device: torch.device
    checkpoint: Path
    sizes: list[Path]
    frames: list[tuple[int, int]]
    widths: list[int]
    deadline: Deadline

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


def attempt(bench: Bench, about: Row, make: Callable[[], Row]) -> Row:
    """A row, or the reason why there is none: no time, no memory, a fault of the device or the user's."""
    if not bench.deadline.left:
        return about | {"why": "no time left"}
    try:
        return about | make()
    except torch.OutOfMemoryError:
        return about | {"why": "out of memory"}
    except (RuntimeError, UserError) as error:
        return about | {"why": " ".join(str(error).split())[:200]}
    finally:
        if bench.cuda:
            torch.cuda.empty_cache()


def versions(bench: Bench) -> Iterator[Row]:
    found: Row = {name: version for name in PACKAGES if (version := installed(name))}
    found |= {"python": platform.python_version(), "system": platform.platform(), "device": describe(bench.device)}
    found |= {"cores": system.cores(), "bfloat16": precision.supported(str(bench.device))}
    if bench.cuda:
        major, minor = torch.cuda.get_device_capability(bench.device)
        free, memory = torch.cuda.mem_get_info(bench.device)
        found |= {"capability": f"{major}.{minor}", "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found |= {"memory_gib": memory / GIB, "free_gib": free / GIB}
    yield found


def play(bench: Bench) -> Iterator[Row]:
    """Whole frames, the picture copied to the host."""
    for way in ("eager", "graph", "compiled"):
        for players in bench.widths:
            about = {"way": way, "players": players}
            if way != "eager" and not bench.cuda:
                yield about | {"why": "on a processor `python -m game_wm compare` times eager and compiled"}
                continue
            yield attempt(bench, about, partial(played, bench, way, players))


def played(bench: Bench, way: str, players: int) -> Row:
    frame, _ = player(bench, way, players)
    seconds = median_seconds(frame, bench.device, bench.deadline.left / 12)
    with Launches() as asked:
        frame()
    row: Row = {"frames_per_second": players / seconds, "p50_ms": 1e3 * seconds}
    row |= {"operations": asked.operations, "synchronisations": len(asked.waits)}
    return row | (profiled(frame, seconds) if bench.cuda else {})


def player(bench: Bench, way: str, players: int) -> tuple[Callable[[], object], WorldModel]:
    """A function that dreams a frame of so many players of the checkpoint, and its model."""
    checkpoint = load(bench.checkpoint, bench.device)
    model = acceleration.prepare(checkpoint.model, "auto", bench.device.type)
    if way == "compiled":
        said: list[str] = []
        acceleration.compile(model, players, said.append)
        if model.compiling is not None:
            model.compiling.join()
        if not model.compiled:
            raise UserError(said[-1])
    which = torch.arange(players) % len(checkpoint.contexts_frames)
    recorded = checkpoint.contexts_actions[which].to(bench.device)
    state = model.start(checkpoint.contexts_frames[which].to(bench.device), recorded, which.to(bench.device))
    if way == "graph":
        graph, given = GraphPlayer(model, state), cycle(recorded.cpu().unbind(1))
        return lambda: graph.step(next(given)), model
    actions = cycle(recorded.unbind(1))
    return lambda: [x.cpu() for x in model.step(state, next(actions))[0]], model


def profiled(frame: Callable[[], object], seconds: float) -> Row:
    """Kernels of a frame, and the share of its time that the device computes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(PROFILED):
            frame()
        torch.cuda.synchronize()
    kernels = [each for each in profile.events() if each.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(each.device_time for each in kernels) / 1e6 / PROFILED
    return {"kernels": len(kernels) / PROFILED, "busy": busy / seconds}


def training(bench: Bench) -> Iterator[Row]:
    """Each stage of the smallest size, and the share of the device's matrix rate that its arithmetic reaches."""
    rung, rate = read_rung(bench.sizes[0]), MatrixRate(bench.device).sample(5).median
    for stage in TRAINED:
        for way in ("eager", "graph") if bench.cuda else ("eager",):
            about = {"size": rung.name, "what": stage, "way": way}
            yield attempt(bench, about, partial(trained, bench, rung, stage, way, rate))


def trained(bench: Bench, rung: Rung, stage: str, way: str, rate: float) -> Row:
    frame = bench.frames[0]
    cost = count_training(rung, stage, frame)
    per = training_rate(rung, stage, frame, bench.device, bench.deadline.left / 8, way == "graph")
    return {"frames_per_second": per, "share_of_peak": cost.cost.flops * per / cost.frames / rate}


def ladder(bench: Bench) -> Iterator[Row]:
    """Sizes as `sizes` predicts them for this device, and as they are."""
    name = describe(bench.device)
    for frame in bench.frames:
        for rung in map(read_rung, bench.sizes):
            about = {"size": rung.name, "frame": f"{frame[0]}x{frame[1]}", "machine": name}
            for stage in ("tokenizer", "dynamics"):
                yield attempt(bench, about | {"what": stage}, partial(trained_rung, bench, rung, stage, frame))
            yield attempt(bench, about | {"what": "play"}, partial(played_rung, bench, rung, frame))


def trained_rung(bench: Bench, rung: Rung, stage: str, frame: tuple[int, int]) -> Row:
    """The device is measured before and after, since others may use it too."""
    cost, machines = count_training(rung, stage, frame), [measured(bench.device)]
    if cost.memory > machines[0].memory:
        return {"why": f"needs {cost.memory / GIB:.0f} of {machines[0].memory / GIB:.0f} GiB"}
    per = training_rate(rung, stage, frame, bench.device, bench.deadline.left / 8, bench.cuda)
    machines.append(measured(bench.device))
    return {"frames_per_second": per, "predicted": sum(cost.frames_per_second(each) for each in machines) / 2}


def played_rung(bench: Bench, rung: Rung, frame: tuple[int, int]) -> Row:
    """A size as it plays for one player, its weights random."""
    coder: Any = module_of(rung, "tokenizer", frame)
    network: Any = module_of(rung, "dynamics", frame)
    model = WorldModel(WorldConfig(coder.tokenizer.config, network.config, network.objective)).to(bench.device).eval()
    model = acceleration.prepare(model.requires_grad_(False), "auto", bench.device.type)
    latents = torch.zeros(1, 2, *model.latent_shape, device=bench.device)
    action = torch.zeros(1, network.config.actions, device=bench.device)
    state = model.start_latents(latents, action[:, None], torch.zeros(1, dtype=torch.long))
    seconds = median_seconds(lambda: model.step(state, action)[0].frames.cpu(), bench.device, bench.deadline.left / 16)
    _, cost, _ = count_frame(rung, frame)
    return {"frames_per_second": 1 / seconds, "predicted": 1 / cost.seconds(measured(bench.device))}


def encode(bench: Bench) -> Iterator[Row]:
    def make() -> Row:
        tokenizer: Tokenizer = load(bench.checkpoint, bench.device).model.tokenizer
        encoder = Encoder(tokenizer, str(bench.device))
        frames = torch.zeros(256, tokenizer.config.height, tokenizer.config.width, 3, dtype=torch.uint8)
        seconds = median_seconds(lambda: encoder(frames), bench.device, bench.deadline.left / 3)
        return {"frames_per_second": len(frames) / seconds}

    yield attempt(bench, {"tokenizer": bench.checkpoint.stem}, make)


def views(bench: Bench) -> Iterator[Row]:
    """What memory shows, drawn and encoded, of so many players or recorded frames at once."""
    for players in bench.widths:

        def make(players: int = players) -> Row:
            checkpoint = load(bench.checkpoint, bench.device)
            model = acceleration.prepare(checkpoint.model, "auto", bench.device.type)
            if not model.config.dynamics.views:
                return {"why": f"{bench.checkpoint.name} has no memory that shows any"}
            which = torch.arange(players) % len(checkpoint.contexts_frames)
            frames, actions = (
                x[which].to(bench.device) for x in (checkpoint.contexts_frames, checkpoint.contexts_actions)
            )
            state, action = model.start(frames, actions, which.to(bench.device)), actions[:, -1]
            with torch.inference_mode():
                draw = lambda: model.render_views(state, action)  # noqa: E731
                return {"frames_per_second": players / median_seconds(draw, bench.device, bench.deadline.left / 6)}

        yield attempt(bench, {"players": players}, make)


def memory(bench: Bench) -> Iterator[Row]:
    """A player's state, and on a GPU the most that was allocated."""
    for players in bench.widths:

        def make(players: int = players) -> Row:
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats(bench.device)
            frame, _ = player(bench, "eager", players)
            frame()
            return {"mib": torch.cuda.max_memory_allocated(bench.device) / 2**20} if bench.cuda else {"why": "of GPUs"}

        yield attempt(bench, {"what": "play", "players": players}, make)
    for rung in map(read_rung, bench.sizes):
        with suppress(UserError):
            _, _, state = count_frame(rung, bench.frames[0])
            yield {"what": "state of a player", "size": rung.name, "mib": state / 2**20}


PARTS: dict[str, tuple[Callable[[Bench], Iterator[Row]], float]] = {  # and its share of the time
    "versions": (versions, 0.02), "play": (play, 0.3), "training": (training, 0.2), "ladder": (ladder, 0.3),
    "encode": (encode, 0.04), "views": (views, 0.06), "memory": (memory, 0.08),
}  # fmt: skip
