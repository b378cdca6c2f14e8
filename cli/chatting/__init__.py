"""The conversation of `intaglio chat` in a terminal."""
