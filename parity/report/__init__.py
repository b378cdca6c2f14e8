"""What a parity report holds: figures, thresholds, verdicts."""
