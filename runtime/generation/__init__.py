"""Many sequences through one decoder: generate, batch, schedule, speculate, score."""
