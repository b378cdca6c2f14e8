"""Which weight is stored in which format."""
