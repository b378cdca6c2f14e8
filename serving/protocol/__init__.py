"""OpenAI's protocol: bodies to requests of the runtime, and events of the runtime to answers. Nothing here does I/O."""
