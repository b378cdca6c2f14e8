"""Calibration texts: files of prose and of chats, and text that the model generates itself."""
