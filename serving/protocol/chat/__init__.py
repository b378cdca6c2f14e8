"""Chat completions: messages and tools to a turn of the model, and its events to pieces, chunks and answers."""
