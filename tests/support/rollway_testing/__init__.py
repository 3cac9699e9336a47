"""Real servers and small tools that the integration and end-to-end tests share."""
