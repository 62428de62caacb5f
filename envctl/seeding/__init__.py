"""Loads seeds, verifies them, and keeps seeded data by content."""

from envctl.seeding.seeds import Loaded, Snapshot, check_mixing, load_seed_into
from envctl.seeding.snapshots import prepare

__all__ = ["Loaded", "Snapshot", "check_mixing", "load_seed_into", "prepare"]
