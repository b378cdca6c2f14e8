"""Source and artifact side by side. No comparison is made yet, and manifests say so: ``not checked``."""
