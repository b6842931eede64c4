"""Where baselines are kept."""
