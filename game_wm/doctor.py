"""What this machine can play, and what keeps it from more: each finding with its remedy.

    python -m game_wm doctor              # or with --json; --quick measures no checkpoint, compiles nothing

Exit status 0 when everything can be played, 1 when something keeps a model from being played at all.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from data_collect import system
from data_collect.commandline import Parser
from data_collect.errors import UserError
from game_wm.library import SHIPPED, playable

State = Literal["good", "poor", "bad"]
SIGN = {"good": "ok", "poor": "..", "bad": "!!"}

FRAMES = 120  # of a checkpoint that are measured, after a warm-up
PLAYING, TRAINING = 2, 8  # GiB of memory that playing and training the maze's model need
PLAY = "python -m game_wm play"
DISK = 10  # GiB: a recording, its latents and a run
PATIENCE = 120  # seconds for a window to open, for one operation to be compiled
HIDDEN_DRIVERS = ("dummy", "offscreen")  # of SDL
HOLD_LLVM = ("libLLVM", "libtriton", "libllvmlite", "xla_extension", "libjax_common")  # Mesa, Triton, numba, JAX
# Distribution, what is wrong with which versions, and what to do about it.
KNOWN_BAD = {
    ("lightning", "2.6.2"): "carried malware: pip install -U lightning, and change every secret it could read",
    ("lightning", "2.6.3"): "carried malware: pip install -U lightning, and change every secret it could read",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, what was found, and what to do where it is not good."""

    about: str
    state: State
    found: str
    remedy: str = ""


def judged(about: str, well: bool, found: str, remedy: str) -> Finding:
    return Finding(about, "good" if well else "poor", found, "" if well else remedy)


def python() -> Iterator[Finding]:
    """The interpreter and the packages that are known to go wrong."""
    yield Finding("python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for (name, version), remedy in KNOWN_BAD.items():
        if installed(name) == version:
            yield Finding(name, "bad", f"{version} {remedy.split(':')[0]}", remedy.split(": ", 1)[1])
    if not installed("torch"):
        remedy = "pip install '.[model]'"
        yield Finding("PyTorch", "bad", "not installed: this machine can record but not play", remedy)
    if installed("pygame") and installed("pygame-ce"):
        remedy = "pip uninstall -y pygame pygame-ce && pip install pygame-ce"
        yield Finding("pygame", "bad", "pygame and pygame-ce overwrite each other's files", remedy)


def installed(name: str) -> str | None:
    """The version of a distribution, None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> Iterator[Finding]:
    """PyTorch against the processor: cores, threads, sixteen bits."""
    import torch

    from game_wm.acceleration import precision

    cores = system.cores()
    threads, level = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    found = f"PyTorch {torch.__version__}, {threads} of {cores} cores, {level}"
    held_back = threads < cores and "OMP_NUM_THREADS" in os.environ
    yield judged("processor", not held_back, found, f"unset OMP_NUM_THREADS, or name more with {PLAY} --threads")
    has, lacks = "bfloat16 is arithmetic of the processor's own, and is used", "no bfloat16 in the processor"
    lacks, native = f"{lacks}: models play in 32 bits, somewhat slower", precision.supported("cpu")
    remedy = f"nothing need be done; where it is too slow: {PLAY} --quality fast"
    yield judged("precision", native, has if native else lacks, remedy)
    has, lacks = (
        f"a C++ compiler: {PLAY} --quality fast can be used",
        f"no C++ compiler, which {PLAY} --quality fast needs",
    )
    there = shutil.which(os.environ.get("CXX", "g++")) is not None
    yield judged("compiler", there, has if there else lacks, "apt install g++")


def graphics_card() -> Iterator[Finding]:
    """PyTorch's build against the graphics card that is there."""
    import torch

    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
        capability, built = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
        found = f"{name}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
        if torch.version.cuda is None or not built or runs_on(capability, built):
            yield Finding("GPU", "good", found)
        else:
            found += f", compute capability {capability[0]}.{capability[1]}; PyTorch has code for {' '.join(built)}"
            newer = "newer" if capability > max(made_for(name) for name in built) else "older"
            remedy = f"install a PyTorch for a {newer} CUDA (https://pytorch.org); until then: {PLAY} --device cpu"
            yield Finding("GPU", "bad", found, remedy)
    elif Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        if torch.version.cuda is None:
            remedy = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu128"
            yield Finding("GPU", "poor", "an NVIDIA driver, but PyTorch was built without CUDA", remedy)
        else:
            remedy = "update the driver (nvidia-smi must list the card), or install a PyTorch for an older CUDA"
            yield Finding("GPU", "poor", f"an NVIDIA driver, but CUDA {torch.version.cuda} finds no card", remedy)
    else:
        yield Finding("GPU", "good", "none: models play on the processor")


def made_for(architecture: str) -> tuple[int, int]:
    """(9, 0) of "sm_90", "sm_90a" or "compute_90"."""
    major, minor = divmod(int(architecture.partition("_")[2].rstrip("af")), 10)
    return major, minor


def runs_on(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether code that was built for some architectures runs on a card: its own or an earlier one of the same major
    version, any earlier one where the driver translates it ("compute_90"), with an "a" its own alone."""
    for name in built:
        made = made_for(name)
        kin = name.startswith("compute_") or made[0] == capability[0]
        if made == capability or (kin and made < capability and not name.endswith("a")):
            return True
    return False


def display() -> Iterator[Finding]:
    found, wrong = ask("beside()")
    driver = found.get("driver", "")
    if not wrong and driver not in HIDDEN_DRIVERS:
        yield Finding("display", "good", f"a window opens ({driver})")
        return
    remedy = "log in with a desktop, or with ssh -X; without one: python -m game_wm play --headless --video dream.mp4"
    why = wrong.partition(":")[0] or f"SDL has its {driver} driver only"
    yield Finding("display", "poor", f"no window can be opened: {why}", remedy)


def compiled_play() -> Iterator[Finding]:
    """Whether compiled code can be made, and run beside a window where one opens; one operation stands for a model."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return  # `processor` has said so
    windowless = ask("beside()")[1] != ""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "one.pt2"))
        found, wrong = ask(f"compile({path!r})")
        if not wrong:
            found, wrong = ask(f"beside({path!r}, window={not windowless})")
    where = "without a window" if windowless else "beside a window"
    there = found.get("llvms", [])
    if wrong:
        wrong = f"compiled code cannot be made, or not run {where}: {wrong}"
    elif len(there) > 1:
        wrong = f"{' and '.join(there)} meet in the process of the window, which may crash"
    llvm = f"{there[0]} alone" if there else "none"
    well = f"compiled code is made, and runs {where}; LLVM in that process: {llvm}"
    yield judged("compiled play", not wrong, wrong or well, f"{PLAY} --quality balanced")


def ask(call: str) -> tuple[dict[str, Any], str]:
    """Call a function of this file in a process of its own, which it may end: what it gives, and what went wrong."""
    code = f"import json; from game_wm.doctor import *; print(json.dumps({call}))"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {}, f"nothing within {PATIENCE} s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1]), ""
    if done.returncode < 0:
        return {}, f"the process was ended by signal {-done.returncode}"
    return {}, (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].split("Error: ", 1)[-1]


def compile(path: str) -> dict[str, Any]:
    import torch

    from game_wm.acceleration.compilation import package

    package(torch.nn.SiLU(), (torch.ones(8),), Path(path))
    return {}


def beside(package: str = "", window: bool = True) -> dict[str, Any]:
    """Open a window as the player does and run this compiled code beside it: SDL's driver, the LLVMs that are there."""
    found: dict[str, Any] = {}
    if window:
        import pygame

        from game_wm.play.window import screen

        screen.open_screen("doctor")
        pygame.display.flip()
        found["driver"] = pygame.display.get_driver()
    if package:
        import torch

        from game_wm.acceleration.compilation import Package

        Package(Path(package))(torch.ones(8))
    maps = Path("/proc/self/maps")
    return {**found, "llvms": llvms(maps.read_text()) if maps.exists() else []}


def llvms(maps: str) -> list[str]:
    """Of the files that a process has mapped (/proc/PID/maps), those that hold an LLVM."""
    names = {line.rpartition("/")[2] for line in maps.splitlines()}
    return sorted(name for name in names if name.startswith(HOLD_LLVM))


def room(folder: Path = Path()) -> Iterator[Finding]:
    available = system.available_bytes()
    if available is None:
        wants = f"playing needs {PLAYING} GiB, training {TRAINING}"
        yield Finding("memory", "good", f"{platform.system()} does not say how much is free: {wants}")
    else:
        free = available / 2**30
        state: State = "good" if free > TRAINING else "poor" if free > PLAYING else "bad"
        remedy = f"close programs: playing needs {PLAYING} GiB, training {TRAINING}"
        yield Finding("memory", state, f"{free:.1f} GiB free", "" if state == "good" else remedy)
    free = shutil.disk_usage(folder).free / 2**30
    remedy = f"make room, or train with --runs on another disk: {DISK} GiB hold a recording and a run"
    yield judged("disk", free > DISK, f"{free:.0f} GiB free", remedy)


def checkpoints(folder: Path, frames: int = FRAMES) -> Iterator[Finding]:
    from game_wm.checkpoint import load
    from game_wm.evaluation.cost import measure

    files = playable(folder)
    if not files:
        yield Finding("checkpoints", "poor", f"none in {folder}", "train one: make demo")
    for path in files:
        try:
            wanted = load(path).schema.fps
            cost = measure(path, frames)
        except UserError as error:
            yield Finding(path.name, "bad", str(error), "get the file again")
            continue
        rate, late = cost["fps_median"], cost["p95_ms"]
        found = f"{rate:.0f} frames/s, 95 % of them within {late:.0f} ms; the game runs at {wanted:g}"
        remedy = f"python -m game_wm play --quality fast, or slower: --fps {max(1, int(rate))}"
        yield judged(path.name, rate >= wanted, found, remedy)


def parser() -> Parser:
    parser = Parser("python -m game_wm doctor", "What this machine can play, how fast, and what keeps it from more.", [
        "python -m game_wm doctor",
        "python -m game_wm doctor --checkpoints runs/mine",
    ])  # fmt: skip
    parser.add_argument(
        "--checkpoints", type=Path, metavar="DIR", help="the models of this folder (default: the program's own)"
    )
    parser.add_argument("--quick", action="store_true", help="measure no checkpoint, compile nothing")
    parser.add_argument("--json", action="store_true", help="print the findings as a list of objects")
    return parser


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    folder = options.checkpoints or SHIPPED
    if options.checkpoints and not folder.is_dir() and not options.quick:
        raise UserError(f"{folder} is no folder: name the one that holds the .safetensors files")
    looks: list[Callable[[], Iterator[Finding]]] = [python, display, room]
    if installed("torch"):
        looks[1:1] = [processor, graphics_card]
    if not options.quick and installed("torch"):
        looks += [compiled_play, lambda: checkpoints(folder)]
    findings = []
    for look in looks:
        for finding in look():
            findings.append(finding)
            if not options.json:
                print(f"{SIGN[finding.state]}  {finding.about}: {finding.found}", flush=True)
                if finding.remedy:
                    print(f"      {finding.remedy}", flush=True)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    return int(any(finding.state == "bad" for finding in findings))
