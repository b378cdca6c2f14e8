"""Messages in, events out: chat templates, reasoning blocks and tool calls."""
