"""The buckets that the pixels of a rollout are sorted into by age: frames since their surface was last on screen."""

from __future__ import annotations

MOVING, NEVER = 0, 2**30  # ages of what moves by itself, and of what was not on screen in the prompt
AGES = {  # name -> least and greatest age
    "17-64": (17, 64),
    "65-256": (65, 256),
    "257-1024": (257, 1024),
    ">1024": (1025, NEVER - 1),
    "never": (NEVER,) * 2,
}
