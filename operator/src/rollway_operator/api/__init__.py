"""The versions of the rollway.dev API."""
