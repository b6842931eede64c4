"""Where changes go: tables and streams, behind one contract."""
