"""OpenAI's Responses protocol, without stored responses: a body becomes a turn of chat, its pieces typed events."""
