"""Films: MP4 and GIF files of what was played."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pygame = pytest.importorskip("pygame")

from windowed import frames_of  # noqa: E402

from data_collect.errors import UserError  # noqa: E402
from data_collect.recording.mp4 import VideoWriter, fitted  # noqa: E402


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


def test_odd_and_large_pictures_are_filmed(tmp_path: Path) -> None:
    for shape in ((33, 47, 3), (601, 700, 3)):
        with VideoWriter(tmp_path / "a.mp4", fps=17.5) as video:
            for level in (0, 200):
                video.write(np.full(shape, level, np.uint8))
        frames = frames_of(tmp_path / "a.mp4")
        assert len(frames) == 2 and abs(int(frames[1].mean()) - 200) < 4
    assert os.listdir(tmp_path) == ["a.mp4"]


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
