"""From a scenario that fails to the smallest one that still does: pure, but for the files that it writes."""

from envctl.shrink.reduce import reduced
from envctl.shrink.schedule import Origin, Schedule, open_origin, written

__all__ = ["Origin", "Schedule", "open_origin", "reduced", "written"]
