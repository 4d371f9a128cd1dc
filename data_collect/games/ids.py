"""Gymnasium's ids: the module that registers one is imported, and one that is not there gets a hint.

spec = find("ALE/Pong-v5")
spec = find("my_module:MyGame-v0")      # imports my_module first
find("MiniGrid-FourRooms-v0")           # UserError: it comes with minigrid, pip install minigrid, then ...
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import gymnasium
from gymnasium import error
from gymnasium.envs.registration import EnvSpec

from data_collect.errors import UserError, failed

# Ids that exist once a package has been imported: what they look like, the module, what to install.
BEHIND_AN_IMPORT = (
    (r"(MiniGrid|BabyAI)-.*", "minigrid", "minigrid"),
    (r"MiniWorld-.*", "miniworld", "miniworld"),
    (r"(highway|highway-fast|merge|roundabout|parking(-.*)?|intersection(-.*)?|racetrack(-.*)?|exit|u-turn|two-way"
     r"|lane-keeping)-v\d", "highway_env", "highway-env"),
    (r"FlappyBird.*", "flappy_bird_gymnasium", "flappy-bird-gymnasium"),
    (r"Vizdoom.*", "vizdoom.gymnasium_wrapper", "vizdoom"),
    (r"MiniHack-.*", "minihack", "minihack"),
    (r"NetHack.*", "nle", "nle"),
    (r"(Fetch|Hand|PointMaze|AntMaze|AdroitHand|FrankaKitchen).*", "gymnasium_robotics", "gymnasium-robotics"),
    (r"Panda.*", "panda_gym", "panda-gym"),
    (r"PyFlyt/.*", "PyFlyt.gym_envs", "PyFlyt"),
    (r"dm_control/.*", "shimmy", "'shimmy[dm-control]'"),
)  # fmt: skip
# Ids of gym, which Gymnasium has replaced: what they look like, and the package.
OF_GYM = (
    (r"(procgen:)?procgen-.*", "procgen2"),
    (r"(gym_super_mario_bros:)?SuperMarioBros.*", "gym-super-mario-bros"),
    (r"(memory_maze:)?MemoryMaze-.*", "memory-maze"),
    (r"(crafter:)?Crafter(NoReward|Reward)?-.*", "crafter"),
)
SOURCE_BYTES = 1 << 20  # larger files in the current folder are no games' modules


def find(env_id: str) -> EnvSpec:
    """What Gymnasium knows of the id, after the packages that register ids of their own. `UserError`: unknown."""
    if env_id.startswith("ALE/"):
        try:
            ale_py = importlib.import_module("ale_py")
        except ImportError:
            raise UserError(f"'gym:{env_id}' needs ale-py: pip install 'game_wm[games]'") from None
        gymnasium.register_envs(ale_py)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    module, _, name = env_id.rpartition(":")
    if not name:
        raise UserError(f"'gym:{env_id}' names no id: give gym:ID, or gym:my_module:ID for one that a module registers")
    before = set(gymnasium.registry)
    try:
        if module:
            importlib.import_module(module)
    except ImportError as failure:
        hint = _of_gym(env_id) or _import_hint(module, failure)
        raise UserError(f"'gym:{env_id}' cannot be imported: {failure}{hint}") from None
    except Exception as failure:
        raise failed(f"the module of 'gym:{env_id}'", failure) from failure
    try:
        return gymnasium.spec(name)
    except error.Error as failure:
        hint = _hint(env_id, module, name, set(gymnasium.registry) - before)
        reason = " ".join(str(failure).split()).rstrip(".")
        raise UserError(f"unknown game 'gym:{env_id}'{hint or f': {reason}'}") from None


def _of_gym(env_id: str) -> str:
    """The end of the sentence for an id of a package that Gymnasium cannot make games of."""
    pip = next((pip for pattern, pip in OF_GYM if re.fullmatch(pattern, env_id)), None)
    return f": {pip} is made for gym, not for Gymnasium; wrap it in a gymnasium.Env of your own" if pip else ""


def _import_hint(module: str, failure: ImportError) -> str:
    """What to do about a module that cannot be imported."""
    package = next((pip for _, known, pip in BEHIND_AN_IMPORT if known == module), None)
    if package is not None:
        return f": pip install {package}"
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        return f"; name the module as Python imports it: {dotted}"
    if isinstance(failure, ModuleNotFoundError) and failure.name == module.partition(".")[0]:
        near = difflib.get_close_matches(module, [path.stem for path in Path().glob("*.py")], 1)
        return f"; did you mean {near[0]}?" if near else "; run this from the folder that holds the module"
    return ""


def _hint(env_id: str, module: str, name: str, registered: set[str]) -> str:
    """The end of the sentence for an id that is not there; empty where nothing better is known than the reason."""
    if old := _of_gym(env_id):
        return old
    for pattern, package, pip in BEHIND_AN_IMPORT:
        if not module and re.fullmatch(pattern, name):
            there = importlib.util.find_spec(package.partition(".")[0]) is not None
            install = "" if there else f"pip install {pip}, then "
            return f": it comes with {package}; {install}--game gym:{package}:{name}"
    if module:
        prefix = f"gym:{module}:"
        if near := _nearest(name, registered or set(gymnasium.registry)):
            return f": did you mean {prefix}{near}?"
        if registered:
            return f": {module} registers {', '.join(sorted(registered)[:8])}"
        return f": {module} registers no such id; it must call gymnasium.register({name!r}, entry_point=…)"
    if name.isidentifier() and Path(f"{name}.py").is_file():
        return f": {name}.py is a module; name the id that it registers as well, gym:{name}:ID"
    if own := _module_here(name):
        return f": {own}.py names it, so --game gym:{own}:{name}"
    if near := _nearest(name, gymnasium.registry):
        return f": did you mean gym:{near}?"
    if "/" not in name and re.fullmatch(r"[\w-]+-v\d+", name):
        return f": if a module of yours registers it, name that before it: gym:my_module:{name}"
    return ""


def _nearest(name: str, ids: Iterable[str]) -> str | None:
    """The id that is written almost like `name`, in its newest version; None where none is."""
    versions: dict[str, str] = {}
    for known in sorted(ids, key=lambda known: [int(part) if part.isdigit() else 0 for part in known.split("-v")[-1:]]):
        versions[known.rpartition("-v")[0] or known] = known
    stem = re.sub(r"-v\d*$", "", name)
    bare = {known.rpartition("/")[2].lower(): known for known in versions}
    lower = bare | {known.lower(): known for known in versions}
    near = difflib.get_close_matches(stem.lower(), lower, 1, 0.75)
    return versions[lower[near[0]]] if near else None


def _module_here(name: str) -> str | None:
    """The module of the current folder whose text holds the id in quotes."""
    for path in sorted(Path().glob("*.py")):
        try:
            text = path.read_text(errors="replace") if path.stat().st_size < SOURCE_BYTES else ""
        except OSError:
            continue
        if f'"{name}"' in text or f"'{name}'" in text:
            return path.stem
    return None
