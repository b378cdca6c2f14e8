"""Servers side by side under the same load: the servers, the cells, and the run."""
