"""The registry as the services have it: all its parts on one database. Each call is a transaction of its own."""

from __future__ import annotations

from pbserv.registry.api_tokens import ApiTokens
from pbserv.registry.counts import Counting
from pbserv.registry.devices import Devices
from pbserv.registry.documents import Documents
from pbserv.registry.engine import Place, open_engine
from pbserv.registry.faults import ConflictError, NotFoundError, RevisionError, UnavailableError, first_line
from pbserv.registry.history import History
from pbserv.registry.identity import Identities
from pbserv.registry.jobs import Jobs
from pbserv.registry.orders import DeviceChange, Progress, WorkOrder
from pbserv.registry.pools import Pools
from pbserv.registry.works import Works


class Registry(Devices, Works, Jobs, Documents, History, ApiTokens, Counting, Identities, Pools):
    """Open with :meth:`open` after :func:`pbserv.registry.migrate.migrate`; close with :meth:`close`.

    A call raises SQLAlchemyError when the database refuses, and of these UnavailableError when it cannot be reached.
    """

    @classmethod
    def open(cls, place: Place) -> Registry:
        """``place``: a SQLite file, or the URL of a PostgreSQL database. Connects at the first call."""
        return cls(open_engine(place))


__all__ = [
    "ConflictError",
    "DeviceChange",
    "NotFoundError",
    "Progress",
    "Registry",
    "RevisionError",
    "UnavailableError",
    "WorkOrder",
    "first_line",
]
