"""One server beside replicas on Ray: the arrangements, the cells, and the processes."""
