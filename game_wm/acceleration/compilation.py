"""Compilation: the parts of a frame as machine code, made in the background while play has already begun.

    model = compile(model)          # in place, before `pack`; returns at once, frames come uncompiled until it is ready
    model.compiling.join()          # waits for it

A frame is thousands of operations of a few microseconds each; PyTorch's compiler (Ansel et al., 2024) fuses them and
lays the convolutions' weights out once. The parts are those of `FrameParts`, of `denoise` a single call,
compiled ahead of time by a process of its own, which does not hold up the one that plays, into a folder where later
starts find them (`~/.cache/game_wm/compiled`, or `compiled` in the folder that GAME_WM_CACHE names).

The process that plays loads the code by PyTorch's C++ alone and never imports the compiler (`torch._inductor`): with it
comes Triton with an LLVM of its own, and a window drawn by GL brings Mesa's. Two of them in one process crash.

Frames differ from uncompiled ones by rounding, as 16 bits differ from 32: by less than half a level of 255 on average,
one frame on. The code is for one number of players; any other is played uncompiled.

Legend: B players, C channels, h, w latent grid, M channels of the views drawn for a frame, A action vector.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only, tree_unflatten, treespec_loads

from data_collect import system
from game_wm.memory.protocol import Frame
from game_wm.memory.working import WorkingMemory
from game_wm.model.dynamics import DynamicsState
from game_wm.state import WorldState
from game_wm.world import FrameParts, WorldModel


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def compile(model: WorldModel, players: int = 1, tell: Callable[[str], None] = say) -> WorldModel:
    """The same model, changed in place: compiled code takes over when it is ready.

    `tell` is called with a sentence then, or with the reason why there is no compiled code: no C++ compiler, a full
    disk, a memory that grows, code that cannot be made.
    """
    missing = shutil.which(os.environ.get("CXX", "g++")) is None
    hindrances = {
        "there is no C++ compiler; install g++ (apt install g++) or name another one in CXX": missing,
        "compiled code is for memories that do not grow (memory.unbounded)": model.memory.grows,
        "compiled code is for models with a U-Net, not for those of tokens": model.config.dynamics.trunk != "unet",
        "compiled code is for one grid, and a cascade has two": model.config.objective.kind == "cascade",
        "another acceleration has replaced parts of a frame, as step caching does": model.parts != model.own_parts(),
    }
    if why := next((reason for reason, hinders in hindrances.items() if hinders), None):
        tell(f"playing uncompiled: {why}")
        return model
    copy = io.BytesIO()
    torch.save(model, copy)  # now: the model may change before the thread reads it
    model.compiling = threading.Thread(target=_compile, args=(model, copy.getvalue(), players, tell), daemon=True)
    model.compiling.start()
    return model


def cache() -> Path:
    """Where compiled code is kept. RuntimeError where there is no such place."""
    return system.cache_folder("compiled")


def key(model: WorldModel, players: int) -> str:
    """A digest of everything that the code depends on: weights, program, machine."""
    about = (torch.__version__, machine(model), torch.get_num_threads(), players, model.low_precision, model.config)
    digest = hashlib.sha256(repr(about).encode())
    product = Path(__file__).parents[1]
    folders = [product / name for name in ("acceleration", "memory", "model", "objectives")]
    for path in sorted([product / "world.py", *(path for folder in folders for path in folder.rglob("*.py"))]):
        digest.update(path.read_bytes())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def machine(model: WorldModel) -> str:
    """The machine that the code is made for: the GPU's name, or the processor's abilities."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name, flags = system.processor()
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(flags or [name])])


# --- the parts as functions of tensors alone -------------------------------------------------------------------------


class Part(nn.Module):
    """A function of a model and of tensors, as PyTorch exports it: the model's weights are the module's."""

    def __init__(self, model: WorldModel, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(self.model, *arguments)


def views(model: WorldModel, state: dict[str, Tensor], action_BA: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
    step, views = model.render_views(WorldState.from_dict(state), action_BA)
    return named(step), views


def denoise(model: WorldModel, read: tuple[Tensor, ...], *arguments: Tensor | None) -> Tensor:
    latents, actions, *ring = read
    state = DynamicsState(latents, actions, None, WorkingMemory(*ring))  # type: ignore[arg-type]
    with model.autocast():
        return model.dynamics.denoise(state, *arguments)  # type: ignore[arg-type]


def decode(model: WorldModel, latents_BCHW: Tensor, before_BCHW: Tensor | None = None) -> Tensor:
    with model.autocast():
        return model.tokenizer.decode(latents_BCHW, before_BCHW)


def commit(
    model: WorldModel, tensors: dict[str, Tensor], step: dict[str, Tensor], frame: tuple[Tensor, Tensor, Tensor]
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """What `commit_frame` returns, and the tensors of the state that are new; others are written in place."""
    state, kind = WorldState.from_dict(tensors), model.memory.Step
    outcome = model.commit_frame(state, kind and kind(**step), Frame(*frame))
    return outcome, {k: v for k, v in state.to_dict().items() if v is not tensors[k]}


def named(step: Any) -> dict[str, Tensor]:
    """The tensors of a memory's step, none where it has none: compiled code takes and gives no classes of ours."""
    return {} if step is None else {name: x for name, x in step._asdict().items() if x is not None}


def read_by_denoiser(state: DynamicsState) -> tuple[Tensor, ...]:
    ring = state.bottleneck
    return state.latents, state.actions, ring.keys, ring.values, ring.sums, ring.count


# --- in the process that plays ---------------------------------------------------------------------------------------


def _compile(model: WorldModel, copy: bytes, players: int, tell: Callable[[str], None]) -> None:
    try:
        folder = cache() / key(torch.load(io.BytesIO(copy), weights_only=False), players)
        if not folder.exists():
            _build(copy, players, folder)
        _install(model, players, folder)
        tell("from here on compiled")
    except (OSError, RuntimeError) as error:
        tell(f"playing uncompiled: {' '.join(str(error).split())[:300]}")


def _build(model: bytes, players: int, folder: Path) -> None:
    """Have another process compile into the folder; RuntimeError with its last words if it cannot."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as name:
        Path(name, "model.pt").write_bytes(model)
        code = "import sys; from game_wm.acceleration.compilation import build; build(*sys.argv[1:])"
        command = [sys.executable, "-c", code, name, str(players), str(torch.get_num_threads())]
        output: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        process = subprocess.Popen(command, **output, start_new_session=True)

        def stop() -> None:
            """Play ends before the compiler does."""
            system.kill_group(process)
            shutil.rmtree(name, ignore_errors=True)

        atexit.register(stop)
        said = process.communicate()[1].strip()
        atexit.unregister(stop)
        if process.returncode:
            raise RuntimeError(said.splitlines()[-1] if said else f"the compiler ended with {process.returncode}")
        Path(name, "model.pt").unlink()
        with suppress(OSError):  # another process has made the same meanwhile
            Path(name).rename(folder)
        Path(name).mkdir(exist_ok=True)


def contiguous(tensors: Any) -> Any:
    """Compiled code assumes how its arguments lie in memory."""
    return tree_map_only(Tensor, Tensor.contiguous, tensors)


def copied(tensors: Any) -> Any:
    return tree_map_only(Tensor, Tensor.clone, tensors)


class Package:
    """A compiled function: what `torch._inductor.aoti_load_package` gives, without the import of the compiler.

    RuntimeError where the file is no package, or is for another machine.
    """

    def __init__(self, path: Path) -> None:
        one_at_a_time, runners, any_device = False, 1, -1  # as `aoti_load_package` has them
        self._code = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", one_at_a_time, runners, any_device)
        self._results = treespec_loads(self._code.get_call_spec()[1])

    def __call__(self, *arguments: Any) -> Any:
        tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
        return tree_unflatten(self._code.boxed_run(tensors), self._results)


def _install(model: WorldModel, players: int, folder: Path) -> None:
    """Put the compiled parts in place of the model's own, for this number of players."""
    run = {path.stem: Package(path) for path in folder.glob("*.pt2")}
    own = model.parts

    def views(state: WorldState, action_BA: Tensor) -> tuple[Any, Tensor | None]:
        if len(state) != players:
            return own.views(state, action_BA)
        step, views = run["views"](*contiguous((state.to_dict(), action_BA)))
        return model.memory.Step(**step), views

    def call(state: DynamicsState, *arguments: Tensor | None) -> Tensor:
        return run["denoise"](*contiguous((read_by_denoiser(state), *arguments)))

    walk = partial(model.denoise, call=call)

    def denoise(state: WorldState, *arguments: Any) -> Tensor:
        return walk(state, *arguments) if len(state) == players else own.denoise(state, *arguments)

    def decode(latents_BCHW: Tensor, before_BCHW: Tensor) -> Tensor:
        if len(latents_BCHW) != players:
            return own.decode(latents_BCHW, before_BCHW)
        return run["decode"](*contiguous((latents_BCHW, before_BCHW)))

    def commit(state: WorldState, step: Any, frame: Frame) -> tuple[Tensor, Tensor]:
        if len(state) != players or not frame.picture.numel():  # compiled code takes pictures, and none was asked for
            return own.commit(state, step, frame)
        outcome, new = run["commit"](tensors := contiguous(state.to_dict()), *contiguous((named(step), tuple(frame))))
        changed = WorldState.from_dict(tensors | new)
        state.dynamics, state.memory = changed.dynamics, changed.memory
        return outcome

    model.parts = FrameParts(views if "views" in run else own.views, denoise, decode, commit)
    model.compiled = True


# --- in the process that compiles ------------------------------------------------------------------------------------


def build(folder: str, players: str, threads: str) -> None:
    """Compile the model in `model.pt` in this folder, into the same folder."""
    from torch._inductor import config, decomposition, graph, mkldnn_ir

    # Two faults of PyTorch 2.14 that have no public way around them, patched in a process that does nothing else.
    # A convolution's result may be added in place to a frozen weight, which changes it for all later calls. And a
    # packed weight is asked for its storage, which it does not have, where a plain weight is as large.
    mkldnn_ir.ConvolutionBinaryInplace.create = mkldnn_ir.ConvolutionBinary.create  # type: ignore[method-assign]
    same = graph.is_same_tensor
    graph.is_same_tensor = lambda data, value: not value.is_mkldnn and same(data, value)
    # The decomposed cubic look-ups take 4.0 of the views' 6.2 ms; PyTorch's own kernel takes 0.9.
    decomposition.decompositions.pop(torch.ops.aten.grid_sampler_2d.default, None)
    system.lower_priority()  # play goes first
    torch.set_num_threads(int(threads))
    model = torch.load(Path(folder, "model.pt"), weights_only=False)  # our own: the process that plays wrote it
    config.freezing = True
    with torch.no_grad():
        for name, part, arguments in parts(model, int(players)):
            check(name, package(part, arguments, Path(folder, f"{name}.pt2")), part, arguments, model.low_precision)


def package(part: nn.Module, arguments: tuple[Any, ...], path: Path) -> Package:
    """Compile a function of tensors into a file; imports the compiler."""
    from torch import _inductor

    _inductor.aoti_compile_and_package(torch.export.export(part, arguments, strict=False), package_path=str(path))
    return Package(path)


def check(name: str, made: Callable[..., Any], meant: Callable[..., Any], arguments: Any, low_precision: bool) -> None:
    """RuntimeError where compiled code computes something else, in the first call or in the second."""
    slack = 1e-2 if low_precision else 1e-3  # absolute; a reward near zero has the rounding error of its large terms
    for _ in range(2):
        results = (tree_leaves(f(*copied(arguments))) for f in (made, meant))
        for got, wanted in zip(*results, strict=True):
            if wanted is None or wanted.dtype == torch.long:  # indices of memory may differ where there is a tie
                continue
            off, size = (got.float() - wanted.float()).norm(), wanted.float().norm()
            if not off <= 0.05 * size + slack:
                raise RuntimeError(f"the compiler made something else of {name} ({off:.3g} off, of {size:.3g})")


def parts(model: WorldModel, players: int) -> list[tuple[str, nn.Module, tuple[Any, ...]]]:
    """Name, function and example arguments of what is compiled."""
    device, config = next(model.parameters()).device, model.config.dynamics
    frames = torch.randint(256, (players, 6, model.height, model.width, 3), dtype=torch.uint8, device=device)
    actions = torch.rand(players, 6, config.actions, device=device)
    state = model.start(frames, actions[:, 1:], torch.arange(players, device=device))
    action, noisy = actions[:, 0].clone(), torch.randn(players, *model.latent_shape, device=device)
    model.step(state, action)  # fills what layers keep from call to call
    state = WorldState.from_dict(copied(state.to_dict()))
    step, drawn = model.render_views(state, action)
    level, stride = (torch.full((players,), x, device=device) for x in (0.25, 0.5))
    before = state.dynamics.latents[:, -1].clone()
    picture = model.decode(noisy, before).clone()
    tensors = state.to_dict()
    made: list[tuple[Callable[..., Any], Any]] = [
        (denoise, (read_by_denoiser(state.dynamics), action, noisy, level, stride, drawn)),
        (decode, (noisy, before)),
        (commit, (tensors, named(step), (noisy, picture, action))),
        *([(views, (tensors, action))] if config.views else []),
    ]
    return [(function.__name__, Part(model, function), contiguous(arguments)) for function, arguments in made]
