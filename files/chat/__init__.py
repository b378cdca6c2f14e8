"""Chat templates: a checkpoint's own, rendered in a sandbox; the exporter and the runtime use them."""
