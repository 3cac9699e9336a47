"""The sample model: train it, judge it, register it in MLflow, promote it, and ask the one that serves."""
