"""A Kubernetes for the demo and the end-to-end tests: kind, a cluster of this machine's own, or one that is named."""
