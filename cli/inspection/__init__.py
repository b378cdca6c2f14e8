"""The description of a checkpoint or an artifact that `intaglio inspect` prints."""
