"""What a call of the registry may raise beside SQLAlchemy's own errors.

One rule: whoever is ready for SQLAlchemyError is ready for a database that has gone away.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from pbserv.errors import PbservError


class NotFoundError(PbservError):
    """No such device, work, job, object or token."""


class ConflictError(PbservError):
    """The change contradicts what the registry holds."""


class RevisionError(ConflictError):
    """An object is not, or not any more, of the revision that the caller expected."""


class UnavailableError(PbservError, SQLAlchemyError):
    """The database cannot be reached; over HTTP that is 503."""

    status = 503


def first_line(fault: Exception) -> str:
    """The database's own words without the statement and its parameters."""
    return (str(fault).splitlines() or [type(fault).__name__])[0]
