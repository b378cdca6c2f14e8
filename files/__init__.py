"""Files that come with a model and may come from anyone: read with bounds, checked, and named in every error."""
