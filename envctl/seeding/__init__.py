"""Loads seeds, verifies them, and keeps seeded data by content."""
