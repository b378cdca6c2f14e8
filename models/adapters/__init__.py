"""PEFT adapters, merged into a checkpoint's weights while they are read."""
