"""HTTP: bodies, streams of events, keys, limits and logs."""
