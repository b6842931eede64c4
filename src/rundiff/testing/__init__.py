"""Conformance suites for people who write destinations and stores of their own."""
