"""Work by several processes over pipes alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import synchronize
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from data_collect.errors import UserError  # noqa: E402
from train.spread import spread  # noqa: E402

pytestmark = pytest.mark.slow


def maker(weights: Any, deed: str) -> Callable[[int], Any]:
    """A job is a number; the first takes longest."""

    def work(number: int) -> Any:
        if number == 2 and deed == "user":
            raise UserError("that will not do")
        if number == 2 and deed == "bug":
            raise KeyError("a fault")
        if number == 2 and deed == "dies":
            os._exit(3)
        time.sleep(0.2 if number == 0 else 0)
        return weights * number

    return work


def test_results_come_in_order_and_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synchronize, "SemLock", None)
    with spread("test_spread:maker", (torch.arange(2), ""), range(5), 2) as results:
        assert [found.tolist() for found in results] == [[0, n] for n in range(5)]
    with spread("test_spread:maker", (torch.arange(2), ""), [], 2) as results:
        assert list(results) == []


@pytest.mark.parametrize(
    ("deed", "kind", "said"),
    [("user", UserError, "that will not do"), ("bug", RuntimeError, "a fault"), ("dies", UserError, "was killed")],
)
def test_what_ends_a_process_ends_the_work(deed: str, kind: type[Exception], said: str) -> None:
    with (
        pytest.raises(kind, match=said),
        spread("test_spread:maker", (torch.arange(2), deed), range(5), 2) as results,
    ):
        list(results)
