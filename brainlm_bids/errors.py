"""The one exception that a user sees as a single line, without a traceback."""


class UserError(Exception):
    """An error that the user can fix: states what is wrong, in which file, and what to do."""


class RunSkipped(UserError):  # noqa: N818  (not an error: a policy)
    """A run that a stated policy leaves out (too short, no brain): recorded, not a failure."""


class Stopped(KeyboardInterrupt):
    """SIGTERM: the call ends now, in order. A kind of ^C: whoever handles that handles this."""
