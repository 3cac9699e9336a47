"""Rollway's model side: what runs inside a model pod."""

__version__ = "0.1.0"
