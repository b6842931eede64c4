"""Real servers for tests, from packages that bring their binaries."""
