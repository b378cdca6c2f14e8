"""One sequence while it is generated: options, sampling, constraints, stopping."""
