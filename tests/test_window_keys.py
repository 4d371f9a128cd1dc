"""Keys, gamepads and agents in the window: what is pressed is what is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from fakes import ATARI, CAR, MAZE, WASD, fake  # noqa: E402
from windowed import A, D, H, Q, S, W, Z, key, stroke  # noqa: E402

from game_wm.play import keymap  # noqa: E402


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


def test_keys_are_let_go_when_the_window_loses_the_keyboard(opened: Any) -> None:
    w = opened()
    key("up")
    w.pump()
    pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    w.pump()
    w.advance()
    assert w.session.scene.model.calls[-1][0] == [0, 0, 0, 0]


def test_taking_over(opened: Any) -> None:
    w = opened(player="policy:windowed:nudge")
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
    w = opened(player="policy:windowed:broken")
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
    assert opened().plugged == ["pad 0", "pad 1"]
