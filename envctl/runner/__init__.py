"""Walks a scenario's timeline inside the environment and writes the record."""
