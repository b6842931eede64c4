"""The comparison: pure, no I/O, no clock."""
