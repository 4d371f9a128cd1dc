"""Small pygame programs for the tests, written to a folder: each has one habit of programs as people write them."""

from __future__ import annotations

from pathlib import Path

HEAD = """
import pygame, random, sys, time
pygame.init()
screen = pygame.display.set_mode((64, 48))
clock = pygame.time.Clock()
def paint(value):
    screen.fill((value % 256, 0, 0))
"""
# The three orders in which a loop reads, waits and shows. Held left makes the picture 200, and 100 otherwise.
EVENTS_FIRST = """
while True:
    pygame.event.pump()
    paint(200 if pygame.key.get_pressed()[pygame.K_LEFT] else 100)
    pygame.display.flip()
    clock.tick(20)
"""
WAIT_FIRST = """
while True:
    clock.tick(20)
    pygame.event.pump()
    paint(200 if pygame.key.get_pressed()[pygame.K_LEFT] else 100)
    pygame.display.update()
"""
IN_A_FUNCTION = """
def main():
    value = 100
    while True:
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                sys.exit()
            if event.type in (pygame.KEYDOWN, pygame.KEYUP) and event.key == pygame.K_LEFT:
                value = 200 if event.type == pygame.KEYDOWN else 100
        clock.tick(20)
        paint(value)
        pygame.display.flip()

if __name__ == "__main__":
    main()
"""


def program(folder: Path, code: str, name: str = "my_game.py", head: str = HEAD) -> str:
    """The id of a game whose code is this, behind the usual beginning."""
    (folder / name).write_text(head + code)
    return f"pygame:{folder / name}"
