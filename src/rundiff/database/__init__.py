"""Where syncs, runs, leases, acknowledgements and failures are kept."""
