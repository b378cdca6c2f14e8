"""What the fused operators of ``models/ops.py`` become while a model is traced, one module per target."""
