"""`--help` of every command of every program: there at once, grouped, with an example; and what is mistyped."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_collect.commandline import Command, Program, load
from data_collect.commands import PROGRAM as COLLECT
from data_collect.errors import UserError, nearest
from game_wm.commands import PROGRAM as MODELS
from game_wm.library import SHIPPED, playable, reference
from game_wm.play.flags import checkpoint_path
from game_wm.play.flags import parser as play_parser
from train.commands import PROGRAM as TRAIN
from train.commands.stages import PAGE, STAGES

PROGRAMS = {"data_collect": COLLECT, "game_wm": MODELS, "train": TRAIN}
COMMANDS = [pytest.param(program, command, id=f"{program.prog.split()[-1]} {command.name}")
            for program in PROGRAMS.values() for command in program.commands]  # fmt: skip


@pytest.mark.parametrize("name", [*PROGRAMS, "play.py"])
def test_no_help_imports_torch(name: str) -> None:
    """One process a program, which asks for the help of every command that the program lists."""
    code = (
        "import sys, runpy\n"
        "from importlib import import_module\n"
        f"if {name!r} == 'play.py':\n"
        "    from game_wm.play.app import main\n"
        "    run, asked = main, []\n"
        "else:\n"
        f"    run = import_module({name + '.__main__'!r}).main\n"
        f"    asked = import_module({name + '.commands'!r}).PROGRAM.commands\n"
        "for words in [[], *(command.name.split() for command in asked)]:\n"
        "    try:\n"
        "        assert run([*words, '--help']) == 0\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "    heavy = {'torch', 'lightning', 'jsonargparse', 'pygame'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
        "print('all', 1 + len(asked))\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    count = len(PROGRAMS[name].commands) if name in PROGRAMS else 0
    assert f"all {1 + count}" in made.stdout


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_a_command_has_a_short_page_with_an_example(program: Program, command: Command) -> None:
    page = load(command.parser)().format_help()
    assert len(page.splitlines()) < 70
    assert f"examples:\n  {program.prog} {command.name}" in page
    assert callable(load(command.parser)) and command.about in program.help()


@pytest.mark.slow
def test_every_command_is_there_to_be_run() -> None:
    for program in PROGRAMS.values():
        assert all(callable(load(command.main)) for command in program.commands)


@pytest.mark.parametrize("stage", STAGES)
def test_the_page_of_a_stage_names_true_flags(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    from train.__main__ import main

    with pytest.raises(SystemExit):
        main([stage, "--help-all"])
    everything = capsys.readouterr().out
    page = load(f"train.commands.stages:{stage}")().format_help()
    shown = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    assert len(everything.splitlines()) > 200 and len(shown) == 15 + 1
    assert all(f"{flag} " in everything or f"{flag}\n" in everything for flag in shown if flag != "--help-all")
    assert set(PAGE) <= {line.rstrip(":") for line in page.splitlines()}


def test_the_page_of_the_pipeline_names_true_flags(capsys: pytest.CaptureFixture[str]) -> None:
    from train.__main__ import main

    with pytest.raises(SystemExit):
        main(["pipeline", "--help-all"])
    everything = capsys.readouterr().out
    page = load("train.commands.stages:pipeline")().format_help().replace("--STAGE", "--tokenizer")
    shown = [line.split()[0] for line in page.splitlines() if line.startswith("  --")]
    assert len(shown) > 12 and all(f"  {flag} " in everything for flag in shown if flag != "--help-all")


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        (COLLECT, "recrd", "did you mean record"),
        (COLLECT, "record --game maze --playr random", "did you mean --player"),
        (COLLECT, "verify a b", "'b' is one argument too many"),
        (MODELS, "evalute x", "did you mean evaluate"),
        (MODELS, "evaluate x --episods 2", "did you mean --episodes"),
        (MODELS, "play --view bth", "did you mean both"),
        (MODELS, "doctor --jsn", "did you mean --json"),
        (MODELS, "play --qualty fast", "did you mean --quality"),
        (TRAIN, "dynamcs", "did you mean dynamics"),
        (TRAIN, "bench attentoin", "did you mean bench attention"),
        (TRAIN, "views --latent x", "did you mean --latents"),
        (TRAIN, "dynamics --minuts 5", "did you mean --minutes"),
        (TRAIN, "dynamics --lr 5", "did you mean --model.lr"),
        (TRAIN, "dynamics --data.batchsize=5", "did you mean --data.batch_size"),
        (TRAIN, "pipeline --dynamics.minuts 5", "did you mean --dynamics.minutes"),
        (TRAIN, "zzz", "there is no command 'zzz' (see `python -m train --help`)"),
    ],
)
def test_what_is_mistyped_gets_the_nearest(program: Program, words: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        program.run(words.split())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_word_that_is_far_from_all_gets_none() -> None:
    assert nearest("zzz", ["record"]) == "" and nearest("RECORD", ["record"]) == "; did you mean record?"


def test_play_names_the_models_that_people_play(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    for name in ("a", "b", "b-teacher", "reference/a-window"):
        (tmp_path / f"{name}.safetensors").touch()
    assert [path.stem for path in playable(tmp_path)] == ["a", "b"]
    for path in (tmp_path / "b-teacher.safetensors", tmp_path / "reference" / "a-window.safetensors"):
        assert reference(tmp_path / f"{path.stem[0]}.safetensors", path.name) == path
    assert reference(tmp_path / "a.safetensors", "a-teacher.safetensors") is None
    page = play_parser().format_help()
    assert all(path.stem in page for path in playable(SHIPPED)) and "teacher" not in page and "window.s" not in page
    assert checkpoint_path(Path("maze")) == SHIPPED / "maze.safetensors"
    with pytest.raises(UserError, match="did you mean doom"):
        checkpoint_path(Path("doon"))
    with pytest.raises(UserError, match=r"did you mean .*/maze.safetensors"):
        checkpoint_path(SHIPPED / "mase.safetensors")
