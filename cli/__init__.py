"""The command line: one small module per verb, and the dispatcher in main.py."""
