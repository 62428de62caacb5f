"""Loads seeds, verifies them, and keeps seeded data by content."""

from envctl.seeding.seeds import Loaded, load_seed_into
from envctl.seeding.snapshots import Snapshot, prepare

__all__ = ["Loaded", "Snapshot", "load_seed_into", "prepare"]
