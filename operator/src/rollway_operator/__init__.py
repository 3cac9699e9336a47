"""Rollway's operator: takes models from an MLflow registry to production on Kubernetes and keeps them right."""

__version__ = "0.1.0"
