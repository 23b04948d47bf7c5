"""Carry an agent's turn on to the next model when its provider fails."""
