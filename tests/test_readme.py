"""What the README names exists: files, modules, make targets, and the keys are those of every model that it ships."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from data_collect.schema import ActionSchema

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = set(re.findall(r"[\w/-]+/[\w-]+\.(?:py|md|yaml|safetensors|json|png)\b", README))


@pytest.mark.parametrize("path", sorted(path for path in FILES if not path.startswith(("runs/", "data/"))))
def test_files(path: str) -> None:
    if path.startswith("checkpoints/") and not (ROOT / "checkpoints").exists():
        pytest.skip("no checkpoints here")
    assert (ROOT / path).exists()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([a-z_]+)", README)) - {"venv"}))
def test_modules(module: str) -> None:
    assert importlib.util.find_spec(f"{module}.__main__")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))))
def test_targets(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


# --- the table of keys ------------------------------------------------------------------------------------------------

SIGNS = {"↑": "up", "↓": "down", "←": "left", "→": "right", "−": "-"}
ROWS = {
    tuple(re.findall(r"Ctrl \w+|[↑↓←→−=.]|F\d+|[A-Z][a-z]*", keys)): text
    for keys, text in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$", README.partition("| key | |")[2].partition("\n\n")[0], re.M
    )
}


def shipped() -> dict[str, ActionSchema]:
    """The schemas of the checkpoints that people play, by the name of their game."""
    safetensors = pytest.importorskip("safetensors")
    found = {}
    for path in sorted((ROOT / "checkpoints").glob("*.safetensors")):
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
        found[metadata["game"]] = ActionSchema.from_json(json.loads(metadata["schema"]))
    return found


def test_keys_of_the_game_are_those_of_every_model() -> None:
    """A row says what its keys do in all models, or in each: "turn in the maze, strafe in Doom"."""
    schemas = shipped()
    assert set(schemas) == {"maze", "doom"}
    for game, schema in schemas.items():
        said = {}
        for keys, text in ROWS.items():
            parts = [part.partition(" in ") for part in text.split(", ")]
            words = [what for what, _, where in parts if not where or game in where.lower()]
            said |= {SIGNS.get(key, key.lower()): words for key in keys}
        for key, name in schema.keys.items():
            assert name.split("_")[0] in said[key], (game, key, said[key])
        # And no key is said to walk that does not.
        moves = {name.split("_")[0] for other in schemas.values() for name in other.names}
        assert {key for key, words in said.items() if moves & set(words)} == set(schema.keys)


def test_every_command_has_its_key_there() -> None:
    pytest.importorskip("pygame")
    from game_wm.play import keymap

    told = {key for keys in ROWS for key in keys}
    for schema in shipped().values():
        for command in keymap.COMMANDS:
            shown = keymap.shown(keymap.key_of(schema, command.name))
            assert shown[0].upper() + shown[1:] in told, command
