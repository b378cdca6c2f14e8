"""One file for each thing that is measured: ``measure(job)`` returns its figures, in a process of its own."""
