"""Messages in, events out: prompts, reasoning blocks and tool calls."""
