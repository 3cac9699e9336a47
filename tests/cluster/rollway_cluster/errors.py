"""What can go wrong, each as one message for the person at the terminal."""


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says why and what to look at."""
