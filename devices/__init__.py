"""What the kernels of other devices and runtimes take: the forms that they want, the conditions, and their sources."""
