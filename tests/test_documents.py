"""What the documents name exists: links and anchors, files, commands, make targets, and the keys of every model."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

from data_collect.commands import PROGRAM as COLLECT
from data_collect.schema import ActionSchema
from game_wm.commands import PROGRAM as MODELS
from game_wm.library import SHIPPED, playable
from train.commands import PROGRAM as TRAIN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DRAWINGS = sorted((ROOT / "docs" / "images").glob("*.svg"))
NAMES = {page: page.relative_to(ROOT).as_posix() for page in [*PAGES, *DRAWINGS]}
OURS = "data_collect|game_wm|train|configs|checkpoints|docs|examples|tests"
# A path of the repository, not one of a run or a placeholder.
PATH = re.compile(rf"(?<![\w/.-])(?:{OURS})/[\w./-]*[\w/](?![\w*<(…-])")
WRITTEN = re.compile(r"checkpoints/maze\.8-episodes\.json|docs/(attention|efficiency-).*")  # by a command


def anchors(page: Path) -> set[str]:
    """Those of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_links_lead_somewhere(page: Path) -> None:
    """`mkdocs build --strict` says the same of docs/ alone."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", [*PAGES, *DRAWINGS], ids=NAMES.get)
def test_paths_exist(page: Path) -> None:
    paths = {path.rstrip(".") for path in PATH.findall(page.read_text().replace("</", " ")) if "NAME" not in path}
    assert not sorted(path for path in paths if not (ROOT / path).exists() and not WRITTEN.fullmatch(path))


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= made


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_table_of_commands_has_all_of_them() -> None:
    table = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for program in (COLLECT, MODELS, TRAIN):
        for command in program.commands:
            assert f"`{program.prog} {command.name}`" in table or f"`{command.name}`" in table, command.name


# --- the table of keys ------------------------------------------------------------------------------------------------

SIGNS = {"↑": "up", "↓": "down", "←": "left", "→": "right", "−": "-"}
PLAY = (ROOT / "docs" / "how-to" / "play.md").read_text()
KEYS = re.compile(r"Ctrl \w+|[↑↓←→−=.]|F\d+|[A-Z][a-z]*")


def table(head: str) -> dict[str, str]:
    """The two columns of a table of the page."""
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PLAY.partition(head)[2].partition("\n\n")[0], re.M))


@cache
def shipped() -> dict[str, ActionSchema]:
    """The schemas of the checkpoints that people play, by their names."""
    safetensors = pytest.importorskip("safetensors")
    found = {}
    for path in playable(SHIPPED):
        with safetensors.safe_open(path, "np") as file:
            found[path.stem] = ActionSchema.from_json(json.loads(file.metadata()["schema"]))
    return found


def test_keys_of_the_game_are_those_of_every_model() -> None:
    """A row has a part for each thing that its keys do: "↑ W forward; ↓ S back"."""
    rows, schemas = {name.lower(): text for name, text in table("| game | |").items()}, shipped()
    assert set(rows) == set(schemas)
    for game, schema in schemas.items():
        parts = [(KEYS.findall(part), part) for part in rows[game].split("; ")]
        said = {SIGNS.get(key, key.lower()): part for keys, part in parts for key in keys}
        assert set(said) == set(schema.keys), game
        for key, name in schema.keys.items():
            assert name.split("_")[0].lower() in said[key].split(" ", 1)[1].replace(",", "").split(), (game, key)


def test_every_command_has_its_key_there() -> None:
    pytest.importorskip("pygame")
    from game_wm.play import keymap

    told = {key for keys in table("| key | |") for key in KEYS.findall(keys)}
    for schema in shipped().values():
        for command in keymap.COMMANDS:
            shown = keymap.shown(keymap.key_of(schema, command.name))
            assert shown[0].upper() + shown[1:] in told, command
