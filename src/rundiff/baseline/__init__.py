"""Baselines: immutable sorted segments, their manifest, and the lookup."""
