"""One dream being played: its state, the moment it has reached, how it is rewound, saved and logged."""

from game_wm.dream.dream import NO_CONTEXT, Dream
from game_wm.dream.moment import Moment

__all__ = ["NO_CONTEXT", "Dream", "Moment"]
