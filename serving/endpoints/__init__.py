"""The endpoints: each module has the functions of its paths."""
