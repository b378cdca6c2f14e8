"""One file for each thing that is measured: ``measure(job)`` gives its figures, in one process."""
