"""Fetch a model's files, verify them, and place them where the server expects them.

The init container of every model pod. It holds the credentials and never runs a model's code; the server runs
the model and has no credentials::

    uri ──► location (allowed?) ──► list (names, sizes, caps) ──► download, hashing while reading
        ──► digest (equals the pin?) ──► MLmodel (a model?) ──► placed, all at once
"""
