"""Lines and progress bars on the terminal."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


def say(text: str) -> None:
    """Print a line; standard error is for warnings and the bar."""
    print(text, flush=True)


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def progress_bar() -> Progress:
    """A rich bar on standard error, disabled where that is no terminal; its tasks have a field `figures`."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()]
    return Progress(*columns, TextColumn("{task.fields[figures]}"), console=console, disable=not console.is_terminal)


class Task:
    """A bar for work that is counted: `with Task("encode", 60000, "frames") as task: task.advance(256)`."""

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.reported, self.began = 0, time.monotonic(), time.monotonic()
        self.bar = progress_bar()
        self.task = self.bar.add_task(name, total=total, figures="")

    def advance(self, amount: int) -> None:
        """Count so much more as done."""
        self.done += amount
        now = time.monotonic()
        figures = f"{self.done / max(now - self.began, 1e-3):.0f} {self.unit}/s"
        self.bar.update(self.task, completed=self.done, figures=figures)
        if self.bar.disable and now - self.reported > 30:
            self.reported = now
            print(f"{self.name} {self.done / self.total:4.0%}  {figures}", file=sys.stderr, flush=True)

    def __enter__(self) -> Task:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
