"""The measured models: their variants, the folder that stores them, their sizes, and the peers' environments."""
