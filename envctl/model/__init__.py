"""Frozen values that travel between the rooms: topology, scenario, seed, plan, environment, event, verdict."""
