"""What can go wrong in a pass, as a tree.

RollwayError
├── PermanentError            waiting does not help: somebody must change something
│   ├── NameConflictError     an object of a child's name is not ours
│   └── SettingsError         the operator's environment is wrong
└── TemporaryError            the next pass may succeed
    ├── ConflictError         the object changed since it was read: run the pass again
    ├── VanishingError        an object of a child's name is still being deleted
    ├── NotLeaderError        another replica may be writing now: this one does not
    └── ClusterError          the API server did not answer, or answered with an error
        ├── ForbiddenError    the operator may not do this
        │   └── EndingError   nothing can be made any more in a namespace that is being deleted
        └── InvalidError      what was written would not be valid beside what is there
"""


class RollwayError(Exception):
    """Root of every error that Rollway raises itself."""


class PermanentError(RollwayError):
    """Waiting does not help: somebody must change something."""


class NameConflictError(PermanentError):
    """An object with the name of a child exists and is not controlled by the ModelDeployment."""


class SettingsError(PermanentError):
    """The operator's environment or a file it names is wrong."""


class TemporaryError(RollwayError):
    """The next pass may succeed."""


class ConflictError(TemporaryError):
    """The object changed since it was read; the pass runs again on fresh values."""


class VanishingError(TemporaryError):
    """An object with the name of a child is being deleted; its name is free again soon."""


class NotLeaderError(TemporaryError):
    """The lease is not held, or not for long enough to write: another replica may be writing."""


class ClusterError(TemporaryError):
    """The API server did not answer in time, or answered with an error."""


class ForbiddenError(ClusterError):
    """The operator may not do this; its RBAC, a quota or the namespace's end forbids it."""


class EndingError(ForbiddenError):
    """The namespace is being deleted: what is in it goes, and nothing can be made in it any more."""


class InvalidError(ClusterError):
    """What was written would not be valid beside what is there."""
