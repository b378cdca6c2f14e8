"""What the ``forward`` of a native module takes besides tensors, and what it returns."""
