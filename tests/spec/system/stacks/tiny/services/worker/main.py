"""Stands for a service; nothing in these tests runs it."""
