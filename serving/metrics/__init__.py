"""What a server tells Prometheus. The names of requests, tokens and times are vLLM's, so that its dashboards work."""
