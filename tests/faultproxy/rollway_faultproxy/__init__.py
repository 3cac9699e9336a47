"""A proxy that misbehaves on demand: it stands before the API server, MLflow or S3, and counts what it does."""
