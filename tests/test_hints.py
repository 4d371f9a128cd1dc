"""Every command that the programs or their documents name is one that can be typed, with flags that it has; and every
flag that a message names is one of the program that prints it."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from data_collect.commandline import load
from data_collect.commands import PROGRAM as COLLECT
from game_wm.commands import PROGRAM as MODELS
from game_wm.objectives import KINDS
from game_wm.play.flags import parser as play_parser
from train.commands import PROGRAM as TRAIN
from train.commands.stages import STAGES

pytest.importorskip("lightning")
ROOT = Path(__file__).parent.parent
PROGRAMS = {program.prog: program for program in (COLLECT, MODELS, TRAIN)}
SOURCES = [path for top in ("data_collect", "game_wm", "train") for path in sorted((ROOT / top).rglob("*.py"))]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "Makefile",
             *sorted((ROOT / "configs").rglob("*.yaml"))]  # fmt: skip
VALUE = "VALUE"  # stands for what is put into a string
COMMAND = re.compile(r"python (?:-m (?:data_collect|game_wm|train)|play\.py)\b[^`\n]*")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")


@functools.cache
def flags_of(prog: str, name: str) -> frozenset[str]:
    """All flags of a command, also of those whose page is an excerpt."""
    if prog == "python play.py":
        return frozenset(play_parser()._option_string_actions)
    command = next(each for each in PROGRAMS[prog].commands if each.name == name)
    flags = set(load(command.parser)()._option_string_actions) | {"--help", "--help-all"}
    stage = name.removeprefix("bench ")
    if stage in STAGES:
        flags |= stage_flags(stage) | ({"--synthetic"} if name.startswith("bench") else set())
    if name == "pipeline":
        flags |= pipeline_flags()
    return frozenset(flags)


@functools.cache
def stage_flags(stage: str) -> frozenset[str]:
    from train.stages.configuration import Reading

    parser = Reading(stage, ["--config", str(ROOT / "configs" / "maze" / f"{stage}.yaml")]).parser
    kinds = {each.name for kind in KINDS.values() for each in fields(kind)}
    return frozenset(parser._option_string_actions) | {f"--model.objective.{name}" for name in ("kind", *kinds)}


@functools.cache
def pipeline_flags() -> frozenset[str]:
    from jsonargparse import ArgumentParser

    from train.pipeline.plan import Pipeline

    parser = ArgumentParser()
    parser.add_class_arguments(Pipeline)
    of_stages = {f"--{stage}.{flag.removeprefix('--')}" for stage in STAGES for flag in stage_flags(stage)}
    return frozenset(parser._option_string_actions) | of_stages


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a source file, implicit joins joined, with `VALUE` for what is put in; docstrings too."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return "".join(text(part) for part in node.values) if isinstance(node, ast.JoinedStr) else VALUE

    inside: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside |= {part for value in node.values for part in ast.walk(value)}
        string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (string or isinstance(node, ast.JoinedStr)) and node not in inside:
            yield node.lineno, text(node)  # type: ignore[attr-defined]


ENDS = r"(?:[,;:.]? +(?:#|/|or|and|first|with|has|again)\b| #|[,;:)] |…|\||\.\.\.)"  # of a command in a sentence


def commands(text: str) -> Iterator[str]:
    """What begins like a command, up to what ends it in a sentence."""
    for found in COMMAND.findall(re.sub(r"\\\n\s*#?\s*", " ", text)):
        yield re.split(ENDS, found)[0].rstrip(".,;:)\"'")


def wrong(command: str, whole: bool) -> str:
    """What is wrong with a command; nothing where it can be typed. `whole`: with any flags it has all it needs."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    prog, rest = ("python play.py", words[2:]) if words[1] == "play.py" else (" ".join(words[:3]), words[3:])
    name = "play"
    if prog in PROGRAMS:
        names = {each.name for each in PROGRAMS[prog].commands}
        name = next((n for n in (" ".join(rest[:2]), " ".join(rest[:1])) if n in names), "")
        if not name:
            open = not rest or rest[0] in ("COMMAND", "STAGE") or VALUE in rest[:2] or rest[0].startswith("-")
            return "" if open else f"no command {rest[0]}"
    flags = flags_of(prog, name)
    given = [word for word in (word.partition("=")[0] for word in rest) if FLAG.fullmatch(word)]
    if unknown := [flag for flag in given if flag not in flags]:
        return f"{prog} {name} has no {', '.join(unknown)}"
    needed = (
        {flag for flag in needs(prog, name) if flag not in given}
        if whole and given and "--help" not in given
        else set()
    )
    return f"it lacks {', '.join(needed)}" if needed else ""


def needs(prog: str, name: str) -> set[str]:
    """The flags that a command cannot do without."""
    if prog not in PROGRAMS:
        return set()
    parser = load(next(each for each in PROGRAMS[prog].commands if each.name == name).parser)()
    return {action.option_strings[-1] for action in parser._actions if action.required and action.option_strings}


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_can_be_typed(path: Path) -> None:
    texts = strings(path) if path.suffix == ".py" else [(0, path.read_text())]
    whole = path.suffix == ".py"  # documents have examples with "..."
    found = [(line, command) for line, text in texts for command in commands(text)]
    errors = [f"{line}: {command!r}: {why}" for line, command in found if (why := wrong(command, whole))]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_printed_can_be_typed_in_any_folder(path: Path) -> None:
    """`play.py` lies in the project's own folder alone."""
    assert not [(line, text) for line, text in told(path) if re.search(r"\bplay\.py -", text)]


# Who prints what is said in a file: by the longest beginning of its path; of all three programs, where it is not here.
PRINTS = {
    "data_collect": [("python -m data_collect", each.name) for each in COLLECT.commands],
    "game_wm": [("python -m game_wm", each.name) for each in MODELS.commands],
    "game_wm/doctor.py": [*((MODELS.prog, name) for name in ("doctor", "play")), (TRAIN.prog, "pipeline")],
    "game_wm/evaluation": [("python -m game_wm", "evaluate")],
    "game_wm/play": [("python play.py", "play")],
    "train": [("python -m train", each.name) for each in TRAIN.commands],
    "train/commands/tools.py": [*((TRAIN.prog, each.name) for each in TRAIN.commands),
                                *((MODELS.prog, name) for name in ("compare", "sizes", "bench gpu"))],
    "train/lab/sizes": [(MODELS.prog, "sizes")],
    "train/lab/bench/gpu.py": [(MODELS.prog, "bench gpu")],
    "train/lab/compare.py": [("python -m game_wm", "compare")],
    "train/lab/rows.py": [("python -m game_wm", "compare")],
    "train/lab/table.py": [("python -m game_wm", "compare")],
    "train/pipeline/": [("python -m train", "pipeline")],
    "train/pipeline/flags.py": [("python -m train", "pipeline"), ("python -m data_collect", "record")],
    "train/data/encode.py": [("python -m train", "encode")],
    "train/export.py": [("python -m train", "export")],
    "train/first_person/draw_views.py": [("python -m train", "views")],
    "train/lab/trial.py": [("python -m train", "trial")],
    **{f"train/first_person/{name}.py": [("python -m train", name)]
       for name in ("atlas", "depth", "motion", "obstacles", "odometry")},
}  # fmt: skip


def told(path: Path) -> Iterator[tuple[int, str]]:
    """Sentences of a file that are no docstrings, without the commands in them."""
    tree = ast.parse(path.read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {ast.get_docstring(node, clean=False) for node in documented}
    for line, text in strings(path):
        if text not in docstrings and " " in text.strip():
            yield line, re.sub(r"pip install [^`]*", "", COMMAND.sub("", text))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_that_are_named_are_those_of_the_program_that_names_them(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    owner = max((each for each in PRINTS if place.startswith(each)), key=len)
    flags = frozenset().union(*(flags_of(*each) for each in PRINTS[owner])) | {"--help"}
    errors = [f"{line}: {flag}" for line, text in told(path) for flag in FLAG.findall(text) if flag not in flags]
    assert not errors, "\n".join(errors)
