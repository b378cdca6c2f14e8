"""What `intaglio inspect` prints of a checkpoint or an artifact."""
