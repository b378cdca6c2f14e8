"""The files beside the graph that an artifact gets: taken over from the checkpoint, or written for other runtimes."""
