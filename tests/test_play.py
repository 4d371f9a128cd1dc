"""Playing: the window under SDL's dummy driver, the headless run, and what either says of bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

import av  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from data_collect.schema import ActionSchema  # noqa: E402
from data_collect.system import resident_bytes  # noqa: E402
from game_wm.dream.actions import ActionLog, read_actions  # noqa: E402
from game_wm.evaluation.cost import measure  # noqa: E402
from game_wm.play import app, flags, headless, keymap  # noqa: E402
from game_wm.play.files import folder  # noqa: E402
from game_wm.play.files.video import VideoWriter, fitted  # noqa: E402
from game_wm.play.session import Session  # noqa: E402
from game_wm.play.timing import Pacer, process_age  # noqa: E402
from game_wm.play.window import paint, window  # noqa: E402
from game_wm.play.window.commands import Commands  # noqa: E402
from game_wm.play.window.display import scaled_to_fit  # noqa: E402
from game_wm.world import Outcome  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
MAZE = ActionSchema(
    "multibinary",
    ("forward", "back", "turn_left", "turn_right"),
    keys={"up": "forward", "down": "back", "left": "turn_left", "right": "turn_right"},
    fps=20,
)
MAZE_WASD = replace(MAZE, keys={**MAZE.keys, "w": "forward", "s": "back"})
ATARI = ActionSchema(
    "discrete",
    ("NOOP", "FIRE", "UP", "UPFIRE"),
    keys={"up": "UP", "space": "FIRE", "p": "FIRE"},
    fps=15,
)
CAR = ActionSchema(
    "box",
    ("steer", "gas"),
    low=(-1, 0),
    high=(1, 1),
    keys={"left": "steer-", "right": "steer+", "up": "gas+"},
    fps=25,
)


class FakeState:
    """The picture and how many frames there were."""

    nbytes, episodic = 1_000_000, None

    def __init__(self, picture: Any) -> None:
        self.picture, self.frames = picture, torch.zeros(1, dtype=torch.int64)

    def to_dict(self) -> dict[str, Any]:
        return {"picture": self.picture, "frames": self.frames}


class FakeModel(torch.nn.Module):
    """The place is written in the red channel; "forward" (or the first axis) brightens the green one."""

    steps = 1
    low_precision = quantised = compiled = False
    compiling = None

    def __init__(self, end: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.end, self.calls = end, []

    def start(self, frames: Any, actions: Any, seeds: Any) -> SimpleNamespace:
        assert frames.shape == (1, 3, 10, 15, 3) and actions.shape[:2] == (1, 2) and seeds.shape == (1,)
        return FakeState(frames[0, -1].clone())

    def begin(self, frames: Any, actions: Any, seed: int, poses: Any = None) -> SimpleNamespace:
        return self.start(frames[None], actions[None], torch.tensor([seed]))

    def step(self, state: FakeState, action: Any, steps: int) -> tuple[Any, FakeState]:
        assert action.dtype == torch.float32 and action.shape[0] == 1
        self.calls.append((action[0].tolist(), steps))
        state.picture = state.picture.clone()
        state.picture[..., 1] += int(action[0, 0])
        state.frames += 1
        ended = float(self.end is not None and int(state.frames) >= self.end)
        return Outcome(state.picture[None], action[:, 0], torch.tensor([ended])), state


def fake(schema: ActionSchema = MAZE, end: int | None = None) -> Any:
    contexts = torch.zeros(4, 3, 10, 15, 3, dtype=torch.uint8)
    contexts[..., 0] = torch.arange(4)[:, None, None, None] * 10
    actions = torch.zeros(4, 2, schema.size)
    return SimpleNamespace(
        model=FakeModel(end), schema=schema, game="maze", name="fake", parameters=1_500_000,
        contexts_frames=contexts, contexts_actions=actions, prompt=lambda i: (contexts[i], actions[i], None),
        check_steps=lambda steps: None,
    )  # fmt: skip


def nudge(frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """A scripted player: forward and left."""
    return np.array([1, 0, 1, 0], np.int8)


def broken(frame: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """A scripted player of another game."""
    return np.array([7])


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a window on a checkpoint, past its loading page; its files go to tmp_path."""
    monkeypatch.setattr(folder, "FOLDER", tmp_path / "recordings")

    def make(checkpoint: Any = None, **options: Any) -> window.Window:
        checkpoint = checkpoint or fake()
        made = window.Window("fake", lambda report: Session(checkpoint, **options))
        assert made.load()
        made.begin()
        made.pump()
        return made

    yield make
    pygame.display.quit()


def key(*names: str, up: bool = False) -> None:
    for name in names:
        kind = pygame.KEYUP if up else pygame.KEYDOWN
        mod = pygame.KMOD_LCTRL if name.startswith("ctrl+") else pygame.KMOD_NONE
        pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(name.removeprefix("ctrl+")), mod=mod))


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- the window -------------------------------------------------------------------------------------------------


def test_keys_move_the_player_and_reach_the_screen(opened: Any) -> None:
    w = opened()
    model = w.session.scene.model
    key("up", "left")
    w.pump()
    w.advance()
    assert model.calls[-1] == ([1, 0, 1, 0], 1)
    key("left", up=True)
    w.pump()
    w.advance()
    assert model.calls[-1][0] == [1, 0, 0, 0] and w.session.now.picture[0, 0, 1] == 2
    assert w.session.latencies.count == 2  # one a change, measured when its picture was shown
    w.hud = False
    w.hint = ""
    w.draw()
    assert w.surface.get_at((w.surface.get_width() // 2, w.surface.get_height() // 2))[:3] == (0, 2, 0)


def test_a_tap_between_two_frames_acts_for_one(opened: Any) -> None:
    w = opened()
    key("up")
    key("up", up=True)
    w.pump()
    w.advance()
    w.advance()
    assert [call[0][0] for call in w.session.scene.model.calls] == [1, 0]


def test_calls_a_frame_are_a_choice_only_where_they_are_one(opened: Any, tmp_path: Path) -> None:
    from tiny import tiny_checkpoint

    from game_wm.checkpoint import load
    from game_wm.objectives import Autoregressive

    w = opened()
    key("=")
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][1] == 2
    path = tiny_checkpoint(tmp_path / "tiny.safetensors", objective=Autoregressive(), levels=(3, 3))
    w = opened(load(path))
    key("-")
    w.pump()
    assert w.session.scene.steps == 64 and "takes 64 calls a frame" in w.hint


def test_memory_is_shown_where_there_is_one(opened: Any, tmp_path: Path) -> None:
    from tiny import tiny_checkpoint

    from game_wm.checkpoint import load

    w = opened()
    key("m")
    w.pump()
    assert not w.session.scene.inspect and "no episodic memory" in w.hint
    w = opened(load(tiny_checkpoint(tmp_path / "tiny.safetensors", prompt=12, recall=True)))
    before = pygame.surfarray.array3d(w.surface)
    key("m")
    w.pump()
    assert w.session.scene.inspect and (pygame.surfarray.array3d(w.surface) != before).any()
    w.advance()
    found = w.session.dream.remembered
    assert found is not None and len(found.ages) == len(found.pictures) > 0
    assert found.ages.min() > 4 and found.view.shape == found.pictures.shape[1:] and len(found.trail) > 0
    w.session.scene.begin()
    assert w.session.dream.remembered is None


def test_a_command_whose_key_the_game_has_is_reached_with_ctrl(opened: Any) -> None:
    w = opened(fake(ATARI))
    key("p")
    w.pump()
    assert not w.session.paused and w.session.controls.keyboard.held == ("p",)
    key("ctrl+p")
    w.pump()
    assert w.session.paused


def test_the_window_obeys_a_key_map_of_ones_own(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("game: {j: forward}\nwindow: {pause: home}\n")
    schema, commands = keymap.read(tmp_path / "keys.yaml", MAZE)
    w = opened(fake(schema), commands=commands)
    key("j", "p", "up")
    w.pump()
    w.advance()
    assert not w.session.paused and w.session.scene.model.calls[-1][0] == [1, 0, 0, 0]
    key("home")
    w.pump()
    assert w.session.paused


def stroke(letter: str, scancode: int, up: bool = False, ctrl: bool = False) -> None:
    """A key of some layout: what it types, and its place."""
    kind, mod = pygame.KEYUP if up else pygame.KEYDOWN, pygame.KMOD_LCTRL if ctrl else pygame.KMOD_NONE
    pygame.event.post(pygame.event.Event(kind, key=ord(letter), scancode=scancode, mod=mod))


W, A, S, D, Q, Z, H = 26, 4, 22, 7, 20, 29, 11  # SDL's scancodes of a US keyboard's keys
WASD = replace(MAZE, keys={"w": "forward", "s": "back", "a": "turn_left", "d": "turn_right"})


@pytest.mark.parametrize("letters", ["wasd", "zqsd", "цфыв", "ςασδ", ",aoe"])  # US, AZERTY, Russian, Greek, Dvorak
def test_everybody_walks_by_the_same_places(letters: str, opened: Any) -> None:
    w = opened(fake(WASD))
    for letter, place, action in zip(letters, (W, A, S, D), ([1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1])):
        stroke(letter, place)
        w.pump()
        w.advance()
        assert w.session.scene.model.calls[-1][0] == action
        stroke(letter, place, up=True)
        w.pump()
        w.advance()
        assert w.session.scene.model.calls[-1][0] == [0, 0, 0, 0]
    assert not (w.latents or w.help or w.chooser or w.session.paused)


def test_commands_are_letters_and_places_where_a_letter_means_nothing(opened: Any) -> None:
    w = opened(fake(WASD))
    stroke("р", H)  # Russian
    w.pump()
    assert w.help
    stroke("h", 13)  # a keyboard that has H elsewhere
    w.pump()
    assert not w.help
    stroke("z", W)  # AZERTY: the key walks, and its letter's command has it with Ctrl
    w.pump()
    assert not w.latents
    stroke("z", W, ctrl=True)
    w.pump()
    assert w.latents
    w.latents = False  # the fake has none
    for letter, place in (("w", Z), ("a", Q)):  # letters of the game that lie elsewhere walk as well
        stroke(letter, place)
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [1, 0, 1, 0]
    stroke("z", W)
    stroke("w", Z, up=True)
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [1, 0, 1, 0]  # the other key for it is still down
    stroke("ц", W, up=True)  # the layout was changed meanwhile
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [0, 0, 1, 0]


def test_ctrl_is_a_commands_where_it_is_not_the_games() -> None:
    ctrl_plays = replace(WASD, keys={**WASD.keys, "left ctrl": "back"})
    for schema, meant in ((WASD, (None, "quality")), (ctrl_plays, ("a", None))):
        assert keymap.meant(schema, keymap.command_keys(schema), "q", "a", ctrl=True) == meant  # AZERTY
    assert keymap.meant(ctrl_plays, keymap.command_keys(ctrl_plays), "s", "s", ctrl=True) == (None, "save")


def test_keys_are_let_go_when_the_window_loses_the_keyboard(opened: Any) -> None:
    w = opened()
    key("up")
    w.pump()
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [0, 0, 0, 0]


def test_pause_and_single_step(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    w = opened(fps=0)
    w.turn()
    key("p")
    w.turn()
    before = w.session.now.frames
    waits: list[int] = []
    monkeypatch.setattr(pygame.event, "wait", lambda ms: waits.append(ms) or pygame.event.Event(pygame.NOEVENT))
    w.turn()
    assert w.session.paused and w.session.now.frames == before
    assert waits == [window.IDLE * 1000]  # asleep, not spinning
    key(".")
    w.turn()
    assert w.session.now.frames == before + 1 and w.session.paused
    key("p")
    w.turn()
    w.turn()
    assert w.session.now.frames > before + 1


def test_places_and_a_new_start(opened: Any) -> None:
    w = opened(seed=6)  # place 6 modulo 4
    assert w.session.dream.context == 2 and w.session.now.picture[0, 0, 0] == 20
    key("up")
    w.pump()
    w.advance()
    key("r")
    w.pump()
    assert w.session.now.frames == 0 and w.session.now.score == 0 and w.session.now.picture[0, 0].tolist() == [20, 0, 0]
    key("n", "n")
    w.pump()
    assert w.session.dream.context == 0
    key("b")
    w.pump()
    assert w.session.dream.context == 3


def test_the_end_of_an_episode_is_shown_and_another_begins(opened: Any) -> None:
    w = opened(fake(end=2), fps=0)
    w.advance()
    w.advance()
    assert w.session.scene.ended and w.wait(time.perf_counter()) > window.NOTICE / 2
    w.resume_at = 0.0
    w.turn()
    assert (w.session.dream.context, w.session.now.frames, w.session.scene.ended) == (1, 1, False)


def test_the_display_can_be_hidden(opened: Any) -> None:
    w = opened()
    w.hint = ""
    w.draw()
    shown = pygame.surfarray.array3d(w.surface)
    key("tab")
    w.turn()
    assert not w.hud
    w.draw()
    hidden = pygame.surfarray.array3d(w.surface)
    assert (shown != hidden).any()
    assert len(np.unique(hidden[::7, ::7].reshape(-1, 3), axis=0)) <= 2  # the picture and the ground


def test_help_holds_the_game_and_names_its_keys(opened: Any) -> None:
    w = opened(fps=0)
    key("h")
    w.turn()
    assert w.help and w.wait(time.perf_counter()) == window.IDLE
    key("escape")
    w.pump()
    assert not w.help and w.running


def test_taking_over(opened: Any) -> None:
    w = opened(player=f"policy:{__name__}:nudge")
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [1, 0, 1, 0]
    key("t")
    w.pump()
    w.advance()
    assert w.session.controls.name == "keyboard" and w.session.scene.model.calls[-1][0] == [0, 0, 0, 0]
    w.session.take_over("random")
    for _ in range(60):
        w.session.tick()
    first = w.session.scene.model.calls[2:]
    assert len({tuple(call[0]) for call in first}) > 2
    w.session.scene.begin()
    for _ in range(60):
        w.session.tick()
    assert (
        w.session.controls.name == "random" and w.session.scene.model.calls[62:] != first
    )  # another episode, other actions


def test_a_faulty_player_loses_the_controls_and_the_dream_goes_on(opened: Any) -> None:
    w = opened(player=f"policy:{__name__}:broken")
    w.advance()
    assert w.session.controls.name == "keyboard" and "action" in w.hint
    w.advance()
    assert w.session.now.frames == 1


def test_denoiser_calls_can_be_changed(opened: Any) -> None:
    w = opened()
    key("=")
    key("=")
    w.pump()
    w.advance()
    key("-")
    w.pump()
    w.advance()
    assert [call[1] for call in w.session.scene.model.calls] == [4, 2]


def test_filming_and_saving_the_actions(opened: Any, tmp_path: Path) -> None:
    w = opened()
    w.advance()
    key("v", "up")
    w.pump()
    for _ in range(7):
        w.advance()
    key("v", "l")
    w.pump()
    w.advance()
    film, log = sorted((tmp_path / "recordings").iterdir(), key=lambda path: path.suffix)
    frames = frames_of(film)
    assert len(frames) == 7 and frames[0].shape == (510, 766, 3)  # 51 times 10 by 15, made even
    assert abs(int(frames[-1][100, 100, 1]) - 7) <= 3
    read = read_actions(log, MAZE)
    assert read.episodes == {0: (0, 0)}
    assert read.actions.tolist() == [[0, 0, 0, 0]] + [[1, 0, 0, 0]] * 7


def test_time_runs_backwards_while_a_key_is_held(opened: Any) -> None:
    w = opened(fps=0)
    key("up")
    for _ in range(6):
        w.turn()
    assert w.session.now.frames == 6 and w.session.now.picture[0, 0, 1] == 6
    key("backspace")
    for _ in range(4):
        w.turn()
    assert w.keys.rewinding and (w.session.now.frames, w.session.now.picture[0, 0, 1], w.session.now.score) == (2, 2, 2)
    for _ in range(4):
        w.turn()
    assert w.session.now.frames == 0 and "no further back" in w.hint
    key("backspace", up=True)
    w.turn()
    assert w.session.now.frames == 1 and len(w.session.dream.log) == 1
    key("p", "backspace")  # while paused as well
    w.turn()
    key("backspace", up=True)
    w.turn()
    assert w.session.paused and w.session.now.frames == 0


def test_the_end_of_an_episode_can_be_taken_back(opened: Any) -> None:
    w = opened(fake(end=3), fps=0)
    for _ in range(3):
        w.advance()
    assert w.session.scene.ended
    key("backspace")
    w.turn()
    assert not w.session.scene.ended and w.session.now.frames == 2
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    w.turn()
    assert not w.keys.rewinding


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", prompt=12, recall=True, endless=True)


def test_a_moment_is_saved_and_come_back_to(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("u")
    w.pump()
    assert "no moment" in w.hint
    for _ in range(3):
        w.advance()
    key("s", "s")
    w.pump()
    assert len(list((tmp_path / "recordings").glob("*.dream"))) == 2  # two in a second have two names
    saved = w.session.now.picture
    for _ in range(2):
        w.advance()
    key("u")
    w.pump()
    assert w.session.now.frames == 3 and np.array_equal(w.session.now.picture, saved)


def test_real_game_and_dream_in_the_window(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("c", "up")
    w.pump()
    w.advance()
    session = w.session
    assert session.scene.view == "both" and session.scene.real.moment.action.tolist() == [1, 0, 0, 0]
    w.hud = False
    w.hint = ""
    w.draw()
    shown = pygame.surfarray.array3d(w.surface)
    half = shown.shape[0] // 2
    middle = shown.shape[1] // 2
    assert (shown[: half - 2, middle] != shown[half + 2 :, middle]).any()
    key("g")
    w.pump()
    assert session.scene.view == "real" and "real game" in w.hint
    key("s")
    w.pump()
    assert "only a dream" in w.hint
    key("g")
    w.pump()
    assert session.scene.view == "dream" and session.scene.linked
    w = opened(replace(load(tiny), game="gym:Nowhere-v0"))
    key("c")
    w.pump()
    assert w.session.scene.view == "dream" and "Nowhere" in w.hint


def test_latents_and_times_are_shown(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    w.draw()
    before = pygame.surfarray.array3d(w.surface)
    key("z", "f")
    w.pump()
    w.draw()
    after = pygame.surfarray.array3d(w.surface)
    changed = (before != after).any(-1)
    assert w.latents and w.graph and changed[: changed.shape[0] // 2].any() and not changed[-20:].any()


def test_a_bad_moment_is_marked(opened: Any, tmp_path: Path) -> None:
    w = opened(seed=2)
    for _ in range(3):
        w.advance()
    key("x")
    w.pump()
    w.advance()
    key("x")
    w.pump()
    first, second = map(json.loads, (tmp_path / "recordings" / "marks.jsonl").read_text().splitlines())
    assert {"checkpoint", "time", "seconds", "calls"} < set(first)
    assert (first["frame"], first["context"], first["seed"]) == (3, 2, 2) and second["frame"] == 4
    assert first["actions"] == second["actions"] and len(read_actions(second["actions"], MAZE)) == second["step"] == 4
    w.session.rewind()
    w.session.step([0, 1, 0, 0])
    key("x")
    w.pump()
    third = json.loads((tmp_path / "recordings" / "marks.jsonl").read_text().splitlines()[-1])
    assert third["actions"] != second["actions"]  # what led to the marks before is still there
    assert read_actions(third["actions"], MAZE).actions[-1, 1]
    assert not read_actions(second["actions"], MAZE).actions.any()


def kept_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("recordings/*"))


def test_escape_asks_once_more_and_the_next_start_goes_on_with_the_dream(
    opened: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from game_wm.checkpoint import load

    checkpoint = load(tiny)
    w = opened(checkpoint)
    for _ in range(3):
        w.advance()
    key("escape")
    w.pump()
    assert w.running and "Esc again leaves" in w.hint and not kept_in(tmp_path)
    w.commands.asked_until = 0.0  # much later
    key("escape")
    w.pump()
    assert w.running
    picture = w.session.now.picture
    key("escape")
    w.pump()
    assert not w.running and len(kept_in(tmp_path)) == 1

    w = opened(checkpoint)
    assert "U goes on where you left" in w.hint and w.session.now.frames == 0
    key("u")
    w.pump()
    assert w.session.now.frames == 3 and np.array_equal(w.session.now.picture, picture)
    key("escape", "escape")
    w.pump()
    assert not w.running and len(kept_in(tmp_path)) == 1  # it is kept already
    other = load(tiny)
    other.__dict__["digest"] = "another checkpoint of that name"
    w = opened(other)
    assert "left" not in w.hint


def test_a_window_that_is_closed_or_ended_keeps_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    (tmp_path / "recordings").mkdir()
    for name in ("tiny-x-20200101-000000-left.dream", "tiny-20200101-000000.dream"):  # another's, one of the player's
        (tmp_path / "recordings" / name).write_text("")
    checkpoint = load(tiny)
    for how in ("close", "end", "close", "end"):
        w = opened(checkpoint)
        w.advance()
        if how == "close":
            pygame.event.post(pygame.event.Event(pygame.QUIT))
            w.pump()
            assert not w.running
        w.commands.finish(w.session)
    names = kept_in(tmp_path)
    assert len(names) == 2 + folder.MOST_LEFT and "tiny-x-20200101-000000-left.dream" in names
    for start in ("nothing is dreamt", "the real game"):
        w = opened(checkpoint, view="real" if start == "the real game" else "dream")
        if w.session.scene.view == "real":
            w.advance()
        w.commands.leave()
        assert not w.running and kept_in(tmp_path) == names


def test_a_dream_that_cannot_be_kept_is_told_before_it_is_left(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    (tmp_path / "recordings").write_text("a file")
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    w.pump()
    assert w.running and "ask again to leave" in w.hint and "recordings" in w.hint
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    w.pump()
    assert not w.running


def test_another_model_does_not_cost_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    import shutil

    from game_wm.checkpoint import load

    w = opened(load(tiny))
    w.advance()
    w.opener = lambda path: lambda report: Session(load(path))
    w.open(Path(shutil.copy(tiny, tmp_path / "other.safetensors")))
    assert w.name == "other" and [name.endswith("-left.dream") for name in kept_in(tmp_path)] == [True]


def test_a_mark_in_a_dream_of_the_real_game_is_the_dream(opened: Any, tiny: Path, tmp_path: Path) -> None:
    from game_wm.checkpoint import load
    from game_wm.dream import saved

    w = opened(load(tiny))
    key("c")
    w.pump()
    w.advance()
    key("x")
    w.pump()
    mark = json.loads((tmp_path / "recordings" / "marks.jsonl").read_text())
    assert mark["context"] == -1 and len(saved.load(Path(mark["dream"]), w.session.checkpoint).actions) == 1


def test_what_began_in_the_real_game_is_left_out_of_an_action_file(capsys: pytest.CaptureFixture[str]) -> None:
    log = ActionLog(MAZE)
    for context, count in ((0, 3), (-1, 2), (1, 4)):
        log.begin(context, 0)
        log.add(np.ones((count, 4), np.int8))
    shown: list[np.ndarray] = []
    cost = headless.play(Session(fake()), 9, log, SimpleNamespace(write=shown.append))  # type: ignore[arg-type]
    assert cost["frames"] == len(shown) == 7 and [int(x[0, 0, 0]) for x in shown] == [0] * 3 + [10] * 4
    assert "2 actions are of dreams that began in the real game" in capsys.readouterr().err
    alone = ActionLog(MAZE)
    alone.begin(-1, 0)
    alone.add(np.ones((2, 4), np.int8))
    with pytest.raises(UserError, match="--replay"):
        headless.play(Session(fake()), 2, alone)


def test_coming_back_to_a_dream_finishes_what_was_recorded_of_the_real_game(
    opened: Any, tiny: Path, tmp_path: Path
) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("s", "g", "k")
    w.pump()
    w.advance()
    assert w.session.data is not None and w.session.data.steps
    key("u")
    w.pump()
    assert w.session.scene.view == "dream" and w.session.data is None and "-data" in w.hint


def test_a_recording_of_the_real_game_says_that_it_waits_after_going_back(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load
    from game_wm.play.window import display

    w = opened(load(tiny))
    key("g", "k")
    w.pump()
    w.advance()
    states = display.states(w.session, False, w.recording_waits())
    assert states == [("recording data, 12 steps", paint.RED)]
    w.rewind()
    assert w.hint == "the recording waits: N begins the next episode"
    w.advance()
    assert (
        display.states(w.session, False, w.recording_waits())[0][0] == "recording data waits: N begins the next episode"
    )
    w.draw()
    for again in ("n", "r"):
        key(again)
        w.pump()
        assert not w.recording_waits() and w.session.data.playing
        w.advance()
        w.rewind()
        assert w.recording_waits()
    key("k")
    w.pump()
    assert not w.recording_waits()


def test_rewinding_a_replay_hands_over_to_the_keyboard(tiny: Path) -> None:
    from game_wm.checkpoint import load

    session = Session(load(tiny))
    session.scene.steps = 2
    for _ in range(5):
        session.tick()
    dream = session.snapshot()
    session.scene.steps = 1
    session.replay(dream)
    for _ in range(4):
        session.tick()
    assert (session.controls.name, session.scene.steps) == ("replay", 2)
    session.rewind()
    assert (session.controls.name, session.scene.steps, session.now.frames) == ("keyboard", 1, 3)
    session.tick()
    assert session.now.frames == 4 and bytes(session.dream.calls) == b"\2\2\2\1"


def test_data_is_recorded_by_a_key(opened: Any, tmp_path: Path) -> None:
    from data_collect.shards.verify import verify

    w = opened()
    key("k")
    w.pump()
    for _ in range(3):
        w.advance()
    key("k")
    w.pump()
    (folder,) = (tmp_path / "recordings").glob("*-data")
    assert "sound" in verify(folder) and w.session.data is None
    key("k")
    w.pump()
    w.advance()
    w.commands.finish(w.session)  # closing the window finishes it
    assert len(list((tmp_path / "recordings").glob("*-data*"))) == 2


def test_another_model_and_saved_dreams_are_chosen(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from game_wm.checkpoint import load

    monkeypatch.setattr(folder, "FOLDER", tmp_path / "recordings")
    for name in ("first", "second"):
        shutil.copy(tiny, tmp_path / f"{name}.safetensors")
    (tmp_path / "second.json").write_text('{"parameters": 2e6, "fidelity": {"psnr": {"1": 30.0}}}')
    (tmp_path / "broken.safetensors").write_text("nothing")

    def opener(path: Path) -> Any:
        return lambda report: Session(load(path))

    path = tmp_path / "first.safetensors"
    w = window.Window("first", opener(path), opener, [tmp_path])
    assert w.load()
    w.begin()
    for _ in range(2):
        w.advance()
    key("s", "o")
    w.pump()
    assert w.chooser is not None and [entry.name for entry in w.chooser.entries[:2]] == ["first", "second"]
    assert w.chooser.entries[1].lines == ("maze · 2.0 M parameters", "PSNR 30.0 dB")
    assert w.wait(time.perf_counter()) == window.IDLE  # the game waits
    w.draw()
    key("right", "return")
    w.pump()
    assert w.name == "second" and w.session.checkpoint.path == tmp_path / "second.safetensors" and not w.chooser
    key("o")
    w.pump()
    w.draw()
    dream = w.chooser.tiles[2]
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=dream.center))
    w.pump()
    assert w.session.now.frames == 2 and w.session.now.picture.shape == (64, 64, 3)
    (tmp_path / "third.safetensors").write_bytes(tiny.read_bytes())
    key("o")
    w.pump()
    (tmp_path / "third.safetensors").write_text("damaged")
    w.chooser.chosen = 2
    key("return")
    w.pump()
    assert "third" in w.hint and w.name == "second" and w.session.now.frames == 2  # what was played goes on
    key("o")
    w.pump()
    key("escape")
    w.pump()
    assert w.chooser is None and w.running
    pygame.display.quit()


def test_full_screen_and_back(opened: Any) -> None:
    w = opened()
    size = w.surface.get_size()
    key("f11")
    w.pump()
    assert w.commands.windowed == size
    w.draw()
    key("f11")
    w.pump()
    assert w.commands.windowed is None and w.surface.get_size() == size


def test_a_gamepad_and_the_mouse_move_axes(opened: Any) -> None:
    w = opened(fake(CAR))

    def post(kind: int, **fields: Any) -> None:
        pygame.event.post(pygame.event.Event(kind, **fields))
        w.pump()
        w.advance()

    post(pygame.JOYAXISMOTION, axis=0, value=-0.5)
    assert w.session.now.action.tolist() == [-0.5, 0]
    post(pygame.JOYAXISMOTION, axis=0, value=0.05)
    post(pygame.JOYAXISMOTION, axis=1, value=-1.0)
    assert w.session.now.action.tolist() == [0, 1]
    post(pygame.JOYAXISMOTION, axis=1, value=0.0)
    width, height = w.surface.get_size()
    post(pygame.MOUSEBUTTONDOWN, button=1, pos=(int(width * 0.65), height // 2))
    assert w.session.now.action[0] == pytest.approx(0.5, abs=0.01)
    post(pygame.MOUSEMOTION, buttons=(1, 0, 0), pos=(width // 2, 0))
    assert w.session.now.action.tolist() == [0, 1]
    post(pygame.MOUSEBUTTONUP, button=1, pos=(0, 0))
    assert w.session.now.action.tolist() == [0, 0]
    post(pygame.MOUSEMOTION, buttons=(0, 0, 0), pos=(0, 0))
    assert w.session.now.action.tolist() == [0, 0]

    w = opened()
    key("up")
    post(pygame.JOYAXISMOTION, axis=1, value=0.02)  # a stick trembles, and the key is still down
    assert w.session.now.action.tolist() == [1, 0, 0, 0]

    w = opened(fake(ATARI))
    post(pygame.JOYHATMOTION, value=(0, 1))
    post(pygame.JOYBUTTONDOWN, button=0)
    assert w.session.now.action.tolist() == [3]  # UPFIRE
    post(pygame.JOYBUTTONUP, button=0)
    post(pygame.JOYHATMOTION, value=(0, 0))
    assert w.session.now.action.tolist() == [0]
    pygame.event.post(pygame.event.Event(pygame.JOYBUTTONDOWN, button=4))
    w.pump()
    assert w.keys.rewinding


def test_a_gamepad_that_is_there_already_is_heard(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pygame.joystick, "get_count", lambda: 2)
    monkeypatch.setattr(pygame.joystick, "Joystick", lambda number: f"pad {number}")
    assert opened().keys.pad.plugged == ["pad 0", "pad 1"]


def test_escape_goes_back_while_another_model_loads(opened: Any, tmp_path: Path) -> None:
    w = opened()
    w.advance()
    session, wait = w.session, threading.Event()
    w.opener = lambda path: lambda report: wait.wait(20) and None
    key("escape")
    w.open(tmp_path / "other.safetensors")
    assert w.running and w.session is session and w.name == "fake"
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    w.open(tmp_path / "other.safetensors")
    wait.set()
    assert not w.running


def test_an_error_is_told_whole(opened: Any, capsys: pytest.CaptureFixture[str]) -> None:
    w = opened()
    words = "recordings/a-long-name.mp4 cannot be written (no space left on the device): " + "free some space " * 8
    w.fail(UserError(words.strip()))
    w.draw()
    assert words.strip() in capsys.readouterr().err
    lines = paint.wrapped(words, 12, 300, 3)
    assert len(lines) == 3 and all(line.get_width() <= 300 for line in lines)
    assert len(paint.wrapped("saved", 12, 300, 3)) == 1


@pytest.fixture(autouse=True)
def no_command_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever goes wrong in a window of these tests, nobody is told to type a flag or to run a command."""
    said: list[str] = []
    fail = window.Window.fail

    def failed(self: window.Window, error: UserError) -> None:
        said.append(str(error))
        fail(self, error)

    monkeypatch.setattr(window.Window, "fail", failed)
    yield
    for words in said:
        assert not re.search(r"--[a-z]|play\.py|python -m|the same command", words), words


def test_the_window_says_what_went_wrong(opened: Any, tiny: Path, tmp_path: Path) -> None:
    import shutil

    from game_wm.checkpoint import load

    w = opened(replace(load(tiny), game="dream:tiny"))
    w.opener = lambda path: lambda report: Session(load(path))
    w.advance()

    def said(*keys: str) -> str:
        w.hint = ""
        key(*keys)
        w.pump()
        w.draw()
        return w.hint

    assert "no moment is saved" in said("u")
    assert "only" in said("q") and "not a game" in said("g") and "not a game" in said("c")
    assert "saved" in said("s")
    w.commands.saved.unlink()
    assert "does not exist" in said("u")

    model = tmp_path / "model.safetensors"
    w.folders = [tmp_path]
    for content, words in ((None, "is gone; O shows"), (b"damaged", "not a whole")):
        model.write_bytes(tiny.read_bytes())
        said("o")
        w.chooser.chosen = next(i for i, entry in enumerate(w.chooser.entries) if entry.path == model)
        model.unlink() if content is None else model.write_bytes(content)
        assert words in said("return") and w.name == "fake"

    shutil.rmtree(tmp_path / "recordings")
    (tmp_path / "recordings").write_text("in the way")
    for letter in "vkslx":
        assert "recordings" in said(letter), letter


def test_tiny_windows_are_drawn(opened: Any, tiny: Path) -> None:
    from game_wm.checkpoint import load

    w = opened(load(tiny))
    key("c", "z", "f", "m")
    w.pump()
    for _ in range(3):
        w.advance()
    for size in ((40, 30), (90, 20)):
        pygame.display.set_mode(size, pygame.RESIZABLE)
        w.draw()
        for page in ("h", "h", "o"):
            key(page)
            w.pump()
            w.draw()
        w.chooser = None


def test_a_film_keeps_its_size() -> None:
    picture = np.full((10, 15, 3), 9, np.uint8)
    assert fitted(picture, None) is picture and fitted(picture, (10, 15)) is picture
    wide = fitted(picture, (10, 30))
    assert wide.shape == (10, 30, 3) and (wide[:, 7:22] == 9).all() and not wide[:, :7].any()
    small = fitted(np.full((20, 30, 3), 9, np.uint8), (10, 30))
    assert small.shape == (10, 30, 3) and (small[:, 8:22] == 9).all() and not small[:, :7].any()


def test_a_gif_is_filmed(tmp_path: Path) -> None:
    from PIL import Image

    with VideoWriter(tmp_path / "a.gif", fps=20) as video:
        for level in (0, 100, 200):
            video.write(np.full((33, 47, 3), level, np.uint8))
    with Image.open(tmp_path / "a.gif") as film:
        film.seek(2)
        assert (film.n_frames, film.info["duration"]) == (3, 50)
        assert abs(int(np.asarray(film.convert("RGB")).mean()) - 200) < 4
    assert os.listdir(tmp_path) == ["a.gif"]


def test_closing_the_window_finishes_the_film(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "dream.mp4"

    def load(report: Any) -> Session:
        session = Session(fake(), fps=0)
        session.record(path)
        return session

    w = window.Window("fake", load)
    advance, count = w.advance, 0

    def counted() -> None:
        nonlocal count
        advance()
        count += 1
        w.running = count < 5

    w.advance = counted  # type: ignore[method-assign]
    w.run()
    assert len(frames_of(path)) == 5 and list(path.parent.iterdir()) == [path]


def test_a_film_that_cannot_be_written_stops_alone(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = opened()
    w.session.record(tmp_path / "dream.mp4")

    def full(self: VideoWriter, picture: np.ndarray) -> None:
        self._abandon()
        raise UserError("the disk is full while writing dream.mp4; free some space or record elsewhere")

    monkeypatch.setattr(VideoWriter, "write", full)
    w.session.take_over("random")
    w.advance()
    assert w.session.video is None and "disk is full" in w.hint
    assert w.session.controls.name == "random" and w.session.now.frames == 1
    assert not list(tmp_path.glob("*.mp4*"))


def test_an_error_while_loading_reaches_the_user() -> None:
    def load(report: Any) -> Session:
        report("Reading x", 0.5)
        raise UserError("x is no checkpoint")

    with pytest.raises(UserError, match="no checkpoint"):
        window.Window("x", load).run()
    assert not pygame.display.get_init()


# --- keys and sizes ---------------------------------------------------------------------------------------------


def test_a_key_of_the_game_is_never_a_command() -> None:
    commands = keymap.command_keys(ATARI)
    assert "p" not in commands and commands["ctrl+p"] == "pause"
    assert ("ctrl+p", "pause") in keymap.shown_keys(ATARI, "Time")
    assert "s" not in keymap.command_keys(MAZE_WASD) and keymap.command_keys(MAZE_WASD)["ctrl+s"] == "save"
    assert set(keymap.command_keys(MAZE).values()) == {command.name for command in keymap.COMMANDS}
    for command in keymap.COMMANDS:
        assert callable(getattr(Commands, command.name))


def test_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("game: {w: forward, e: turn_right}\nwindow: {rewind: left shift, pause: [1, home]}\n")
    schema, commands = keymap.read(path, MAZE)
    keys = keymap.command_keys(schema, commands)
    assert schema.keys == {"w": "forward", "e": "turn_right"} and schema.names == MAZE.names
    assert (keys["left shift"], keys["1"], keys["home"]) == ("rewind", "pause", "pause") and "backspace" not in keys
    (tmp_path / "keys.json").write_text('{"window": {"help": "f2"}}')
    schema, commands = keymap.read(tmp_path / "keys.json", MAZE)
    assert schema == MAZE and keymap.key_of(schema, "help", commands) == "f2"
    path.write_text("game: {w: fly}\nwindow: {pause: up, help: f2}\n")  # given for another model
    schema, commands = keymap.read(path, MAZE, other=True)
    keys = keymap.command_keys(schema, commands)
    assert schema == MAZE and (keys["f2"], keys["ctrl+up"]) == ("help", "pause")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("game: {w: fly}", "fly"), ("game: {hyper: forward}", "hyper"), ("game: {ArrowUp: forward}", "called .up."),
        ("game: [w]", "action for each key"),
        ("window: {jump: w}", "jump"), ("window: {pause: up}", "key of the game"), ("window: {pause: r}", "both"),
        ("window: {pause: []}", "no key"), ("keys: {}", "keys"), ("{", "cannot be read"), ("", "must hold"),
    ],
)  # fmt: skip
def test_a_faulty_key_map_is_told_in_a_sentence(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(UserError, match=word) as error:
        keymap.read(tmp_path / "keys.yaml", MAZE)
    assert "keys.yaml" in str(error.value) and "\n" not in str(error.value)


def test_keys_light_up_by_the_action_whoever_chose_it() -> None:
    assert keymap.pressed(MAZE, np.array([1, 0, 0, 1])) == {"up": 1, "down": 0, "left": 0, "right": 1}
    assert keymap.pressed(ATARI, np.array([3])) == {"up": 1, "space": 1, "p": 1}
    assert keymap.pressed(ATARI, np.array([0])) == {"up": 0, "space": 0, "p": 0}
    down = keymap.pressed(CAR, np.array([-0.5, 0.25], np.float32))
    assert down == pytest.approx({"left": 0.5, "right": 0, "up": 0.25})


def test_keys_of_one_action_stand_together() -> None:
    both = ActionSchema("multibinary", ("go", "use"), keys={"w": "go", "e": "use", "up": "go"}, fps=20)
    assert keymap.game_keys(both) == [(("up", "w"), "go"), (("e",), "use")]
    assert [words for _, words in keymap.game_keys(CAR)] == ["steer −", "steer +", "gas"]


def test_pictures_are_enlarged_in_whole_pixels() -> None:
    assert scaled_to_fit((64, 64), (800, 700)) == pygame.Rect(80, 30, 640, 640)
    assert scaled_to_fit((160, 210), (100, 100)).height == 100
    for size in ((200, 150), (1600, 400)):
        assert paint.type_size(pygame.Surface(size)) >= 10


def test_pacing_is_steady_and_does_not_hurry_after_a_late_frame() -> None:
    pacer = Pacer(10)
    assert pacer.wait(5.0) == 0
    pacer.advance(5.0)
    assert pacer.wait(5.04) == pytest.approx(0.06)
    pacer.advance(5.101)  # a millisecond late: the next one is due on the beat
    assert pacer.wait(5.101) == pytest.approx(0.099)
    pacer.advance(9.0)
    assert pacer.wait(9.0) == pytest.approx(0.1)
    assert Pacer(0).wait(1.0) == 0


# --- files ------------------------------------------------------------------------------------------------------


def test_odd_and_large_pictures_are_filmed(tmp_path: Path) -> None:
    for shape in ((33, 47, 3), (601, 700, 3)):
        with VideoWriter(tmp_path / "a.mp4", fps=17.5) as video:
            for level in (0, 200):
                video.write(np.full(shape, level, np.uint8))
        frames = frames_of(tmp_path / "a.mp4")
        assert len(frames) == 2 and abs(int(frames[1].mean()) - 200) < 4
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_log_plays_again_from_the_same_places(tmp_path: Path) -> None:
    checkpoint = fake(end=5)
    first = Session(checkpoint, seed=1)
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(12):
        if i == 3:
            first.scene.begin(first.dream.context + 1)
        if first.scene.ended:
            first.scene.begin(first.dream.context + 1)
        pictures.append(first.step(rng.integers(0, 2, 4)).picture)
    first.dream.log.save(tmp_path / "log.npz", first.checkpoint.name, first.scene.steps)
    log = read_actions(tmp_path / "log.npz", MAZE)
    assert log.episodes == {0: (1, 1), 3: (2, 1), 8: (3, 1)}

    again: list[np.ndarray] = []
    video = SimpleNamespace(write=again.append)
    headless.play(Session(checkpoint), 12, log, video)  # type: ignore[arg-type]
    assert np.array_equal(again, pictures)


def test_action_files_of_every_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(4, dtype=np.int64))
    (tmp_path / "a.json").write_text(json.dumps({"actions": [[0, 1, 0, 0], [1, 0, 0, 1]]}))
    (tmp_path / "b.json").write_text("[0, 3, 1]")
    np.savez(tmp_path / "c.npz", actions=np.array([[0.5, 0.25]]))
    assert read_actions(tmp_path / "a.npy", MAZE).actions.tolist() == np.eye(4).tolist()
    assert len(read_actions(tmp_path / "a.json", MAZE)) == 2
    assert read_actions(tmp_path / "b.json", ATARI).actions.tolist() == [[0], [3], [1]]
    assert read_actions(tmp_path / "c.npz", CAR).actions.tolist() == [[0.5, 0.25]]


def write_bad_action_files(folder: Path) -> list[Path]:
    np.save(folder / "shape.npy", np.zeros((5, 3)))
    np.save(folder / "values.npy", np.full((5, 4), 7))
    np.save(folder / "empty.npy", np.zeros((0, 4)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(folder / "names.npz", something=np.zeros(4))
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 and then nothing")
    np.savez_compressed(folder / "bits.npz", actions=np.eye(4))
    content = bytearray((folder / "bits.npz").read_bytes())
    content[70:90] = b"\xff" * 20  # within what is compressed
    (folder / "bits.npz").write_bytes(content)
    for name, steps in (("terabytes", 10**12), ("overflow", 10**30)):
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (steps, 4)})
    (folder / "brackets.npy").write_bytes(b"\x93NUMPY\x01\x00\x08\x00((((((((")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "digits.json").write_text(f"[[1, 1, 1, {10**400}]]")
    for name, schema in (("schema", "{nope"), ("kind", '{"kind": "discrete"}'), ("nested", "[" * 100_000)):
        np.savez(folder / f"{name}.npz", actions=np.eye(4), schema=schema)
    (folder / "text.json").write_text("{not json")
    (folder / "ragged.json").write_text("[[0, 1], [1]]")
    (folder / "words.json").write_text('["left", "right"]')
    (folder / "actions.csv").write_text("0,1,0,0\n")
    log = ActionLog(ATARI)
    log.begin(0, 0)
    log.add(np.array([1]))
    log.save(folder / "other.npz", "pong", 1)
    return [*sorted(folder.iterdir()), folder / "missing.npy"]


def test_action_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for path in write_bad_action_files(tmp_path):
        with pytest.raises(UserError) as error:
            read_actions(path, MAZE)
        assert path.name in str(error.value) and "\n" not in str(error.value)
        assert any(word in str(error.value) for word in ("forward", ".npz, .npy or .json"))


@pytest.mark.parametrize(
    ("start", "context", "seed"),
    [
        (["a"], [0], [0]), ([0.5], [0], [0]), ([np.nan], [0], [0]), ([-3], [0], [0]), ([6], [0], [0]),
        ([2, 1], [0, 0], [0, 0]), ([[0]], [0], [0]), (0, 0, 0), ([0, 1], [0], [0]),
        ([0], [0], [2**64 - 1]), ([0], [0], [-5]), ([0], [0], None),
    ],
)  # fmt: skip
def test_episodes_that_cannot_begin_so_are_refused(start: Any, context: Any, seed: Any, tmp_path: Path) -> None:
    columns = {"start": start, "context": context} | ({} if seed is None else {"seed": seed})
    np.savez(tmp_path / "mine.npz", actions=np.zeros((5, 4)), **columns)
    with pytest.raises(UserError, match=r"mine\.npz .*episodes begin .*leave out `start`"):
        read_actions(tmp_path / "mine.npz", MAZE)


def test_episodes_may_begin_anywhere_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", actions=np.zeros((5, 4)), start=[0, 5], context=[-1, 7], seed=[0, 2**62])
    assert read_actions(tmp_path / "a.npz", MAZE).episodes == {0: (-1, 0), 5: (7, 2**62)}
    np.savez(tmp_path / "a.npz", actions=np.zeros((5, 4)), seed=3)  # another program's file
    assert read_actions(tmp_path / "a.npz", MAZE).episodes == {}


# --- headless ---------------------------------------------------------------------------------------------------

COST = (
    "fps_median", "p50_ms", "p95_ms", "p50_ms_first", "p50_ms_last", "rss_mb_first", "rss_mb_last", "first_frame_s",
    "state_mb", "frames", "device",
)  # fmt: skip


def test_the_cost_object() -> None:
    session = Session(fake(end=50), player="random")
    cost = headless.play(session, 300)
    assert tuple(cost) == COST
    assert cost["frames"] == 300 and len(session.scene.model.calls) == 300 + headless.WARM_UP
    assert cost["state_mb"] == 1.0 and cost["device"].startswith("cpu, ")
    assert 0 < cost["p50_ms"] <= cost["p95_ms"] and cost["fps_median"] > 0
    assert cost["first_frame_s"] > 0 and cost["rss_mb_last"] > 10


def test_figures_look_at_either_end() -> None:
    seconds = np.concatenate([np.full(200, 0.01), np.full(9600, 0.02), np.full(200, 0.04)])
    figures = headless.summary(seconds, np.full(10_000, 500_000_000))
    assert (figures["p50_ms_first"], figures["p50_ms"], figures["p50_ms_last"]) == (10, 20, 40)
    assert (figures["fps_median"], figures["rss_mb_last"]) == (50, 500)


def test_what_is_played_does_not_depend_on_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    for warm_up in (1, 64):
        monkeypatch.setattr(headless, "WARM_UP", warm_up)
        session = Session(fake(end=30), seed=3, player="random")
        headless.play(session, 100)
        played.append(session.dream.log.actions.tolist())
        assert len(session.dream.log) == 100 and session.dream.log.episodes == {
            0: (3, 3),
            30: (0, 3),
            60: (1, 3),
            90: (2, 3),
        }
    assert played[0] == played[1]


def test_this_process_has_an_age_and_a_size() -> None:
    assert 0 < process_age() < 24 * 3600
    assert 10e6 < resident_bytes() < 1e12


# --- the command line -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model as a real checkpoint."""
    from game_wm.checkpoint import Checkpoint, save
    from game_wm.model.config import DynamicsConfig
    from game_wm.model.tokenizer import TokenizerConfig
    from game_wm.world import WorldConfig, WorldModel

    torch.manual_seed(0)
    config = WorldConfig(
        TokenizerConfig(height=16, width=16, channels=4, encoder_widths=(16, 16), decoder_widths=(16, 16)),
        DynamicsConfig(channels=4, height=4, width=4, actions=4, window=4, widths=(32, 32), blocks=(1, 1),
                       condition=32, context_width=32, context_blocks=1, heads=2, registers=1),
    )  # fmt: skip
    contexts = torch.randint(0, 255, (3, 5, 16, 16, 3), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    save(path, Checkpoint(WorldModel(config), MAZE, "maze", contexts, torch.zeros(3, 4, 4), {}, "tiny"))
    return path


def run(*arguments: Any, **environment: str | None) -> subprocess.CompletedProcess[str]:
    changed = {**os.environ, **environment}
    env = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "play.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_headless_json_is_all_that_is_printed(saved: Path, tmp_path: Path) -> None:
    log = ActionLog(MAZE)
    log.begin(2, 5)
    log.add(np.eye(4))
    log.save(tmp_path / "log.npz", "tiny", 1)
    video = tmp_path / "dream.mp4"
    done = run(saved, "--headless", "--json", "--actions", tmp_path / "log.npz", "--video", video, "--threads", 1,
               "--precision", 32, SDL_VIDEODRIVER=None)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    cost = json.loads(done.stdout)
    assert tuple(cost) == COST and (cost["frames"], cost["device"]) == (4, "cpu, 1 thread, balanced")
    assert len(frames_of(video)) == 4


def test_cost_from_a_fresh_process(saved: Path) -> None:
    cost = measure(saved, frames=3, threads=1, steps=2)
    assert tuple(cost) == COST and cost["frames"] == 3
    with pytest.raises(UserError, match="does not exist"):
        measure(saved.with_name("none.safetensors"), frames=3)


def test_no_display_says_how_to_go_on(saved: Path) -> None:
    done = run(saved, SDL_VIDEODRIVER=None, DISPLAY=None, WAYLAND_DISPLAY=None)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--headless" in done.stderr and "DISPLAY" in done.stderr


def sentence(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What play.py says on stderr as it exits with status 2."""
    from data_collect.errors import main_guard

    assert main_guard(lambda: app.main([str(argument) for argument in arguments])) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("error: ")
    return err


def test_bad_checkpoints(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = saved.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("short", "empty", "text", "other", "missing"):
        assert name in sentence(capsys, tmp_path / f"{name}.safetensors", "--headless", "--frames", 2)
    assert "text" in sentence(capsys, tmp_path / "text.safetensors")  # in the window as well
    assert "folder" in sentence(capsys, tmp_path, "--headless")


def test_bad_options(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "five.npy", np.zeros((5, 3)))
    np.save(tmp_path / "good.npy", np.zeros((5, 4)))
    headless_run = (saved, "--headless", "--frames", 6)
    assert "five.npy" in sentence(capsys, *headless_run, "--actions", tmp_path / "five.npy")
    assert "5 actions" in sentence(capsys, *headless_run, "--actions", tmp_path / "good.npy")
    assert "explorer" in sentence(capsys, *headless_run, "--player", "explorer")
    assert "keyboard" in sentence(capsys, *headless_run, "--player", "keyboard")
    assert "nowhere" in sentence(capsys, *headless_run, "--player", "policy:nowhere:f")
    assert "0 to 2" in sentence(capsys, *headless_run, "--context", 3)
    assert "--view" in sentence(capsys, *headless_run, "--json", "--view", "both")
    assert "say where to begin" in sentence(capsys, *headless_run, "--context", 1, "--picture", "a.png")
    assert "keys.yaml" in sentence(capsys, *headless_run, "--keys", tmp_path / "keys.yaml")
    assert "65" in sentence(capsys, *headless_run, "--steps", 65)
    assert "--headless" in sentence(capsys, saved, "--frames", 3)
    assert "folder" in sentence(capsys, *headless_run, "--video", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in sentence(capsys, *headless_run, "--video", tmp_path / "file" / "a.mp4")
    assert "same film" in sentence(capsys, *headless_run, "--video", "a.mp4", "--record", "b.mp4")
    if not torch.cuda.is_available():
        assert "CUDA" in sentence(capsys, *headless_run, "--device", "cuda")


@pytest.mark.parametrize("seed", ["-5", "99999999999999999999", "one", "0.5"])
def test_bad_seeds(seed: str, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--seed: {seed} is not a seed" in sentence(capsys, saved, "--headless", "--seed", seed)


def test_the_largest_seed_plays(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([str(saved), "--headless", "--frames", "2", "--seed", str(flags.SEEDS - 1)]) == 0
    assert "2 frames" in capsys.readouterr().out


def test_a_video_is_an_mp4_or_a_gif(tmp_path: Path) -> None:
    for name in ("x.avi", "x", "x.mp4.part", ".mp4"):
        with pytest.raises(UserError, match=r"neither \.mp4 nor \.gif"):
            VideoWriter(tmp_path / name, fps=20)
    assert os.listdir(tmp_path) == []
    with VideoWriter(tmp_path / "X.MP4", fps=20) as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
    assert len(frames_of(tmp_path / "X.MP4")) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_video_does_not_replace_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.gif").symlink_to(os.devnull)
    for name in ("pipe.mp4", "device.gif"):
        with pytest.raises(UserError, match=rf"{name} is a device or a pipe"):
            VideoWriter(tmp_path / name, fps=20)
    assert (tmp_path / "pipe.mp4").is_fifo() and (tmp_path / "device.gif").is_char_device()
    assert sorted(os.listdir(tmp_path)) == ["device.gif", "pipe.mp4"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_filming(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".full.mp4.part").symlink_to("/dev/full")
    assert "disk is full" in sentence(capsys, saved, "--headless", "--frames", 3, "--video", tmp_path / "full.mp4")


def test_commands_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from game_wm.__main__ import main

    assert main([]) == 0 and "evaluate" in capsys.readouterr().out
    with pytest.raises(UserError, match="'dance'"):
        main(["dance"])
