"""A loaded graph: opening it, running it, and the machine that it runs on."""
