"""The engine: the life of a run, around the pure comparison."""
