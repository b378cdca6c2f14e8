"""OpenTelemetry: one span for each request, without what it says. Off unless an address to send spans to is set."""
