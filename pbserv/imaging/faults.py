"""What can go wrong with an image, as types; each carries the HTTP status that means the same. Pure.

One rule: the text says which image or item, what is wrong and what to do; whoever serves it only prints it.
"""

from __future__ import annotations

from http import HTTPStatus

from pbserv.errors import PbservError


class ImagingFault(PbservError):
    """Base of all faults of the image store; ``status`` is the answer over HTTP."""

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def denied(self) -> bool:
        """True when the caller was refused by a rule, False when the work itself failed."""
        return self.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)


class InvalidName(ImagingFault):
    """An image, item or version that cannot exist under that name."""

    status = HTTPStatus.BAD_REQUEST


class InvalidRequest(ImagingFault):
    """A header or query value that cannot be read."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(ImagingFault):
    """No token, or one that nobody gave out."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(ImagingFault):
    """A valid token or request that this server's rules do not allow."""

    status = HTTPStatus.FORBIDDEN


class UnknownImage(ImagingFault):
    """No such image, version or item."""

    status = HTTPStatus.NOT_FOUND


class UnknownStore(ImagingFault):
    """No image store of that name is configured."""

    status = HTTPStatus.NOT_FOUND


class UnknownTask(ImagingFault):
    """No task of that number runs or ended not long ago."""

    status = HTTPStatus.NOT_FOUND


class ImageExists(ImagingFault):
    """The name is taken and overwriting was not asked for."""

    status = HTTPStatus.CONFLICT


class NotRestorable(ImagingFault):
    """The image is kept and served, but it is not one of a disk."""

    status = HTTPStatus.CONFLICT


class UploadRunning(ImagingFault):
    """Somebody else is uploading under this name, or an item of the draft is still arriving."""

    status = HTTPStatus.CONFLICT


class UploadStalled(ImagingFault):
    """The sender kept the connection open and sent nothing."""

    status = HTTPStatus.REQUEST_TIMEOUT


class UploadBroken(ImagingFault):
    """The connection ended in the middle of the body."""

    status = HTTPStatus.BAD_REQUEST


class ShortBody(ImagingFault):
    """Fewer or more bytes arrived than were announced."""

    status = HTTPStatus.BAD_REQUEST


class ChecksumMismatch(ImagingFault):
    """The bytes that arrived are not the bytes that were meant."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class BadStream(ImagingFault):
    """The bytes that arrived are not what their kind promises: a damaged header, frame or end."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class ManifestMismatch(ImagingFault):
    """The manifest and the uploaded items do not agree."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class DraftGone(ImagingFault):
    """The upload was discarded or committed already."""

    status = HTTPStatus.GONE


class InUse(ImagingFault):
    """Somebody needs the image or version; the text names them."""

    status = HTTPStatus.CONFLICT


class WrongState(ImagingFault):
    """The state of a version does not allow what was asked for."""

    status = HTTPStatus.CONFLICT


class Changed(ImagingFault):
    """Somebody else changed it since the caller looked (If-Match)."""

    status = HTTPStatus.PRECONDITION_FAILED


class NotSupported(ImagingFault):
    """The backend that LIBRARY_NAME names cannot do this."""

    status = HTTPStatus.NOT_IMPLEMENTED


class WrongPart(ImagingFault):
    """A part of an upload that is not the next one, or another one than the one that came under its number.

    ``next_part`` is the one to send, 0 where that is not said.
    """

    status = HTTPStatus.CONFLICT

    def __init__(self, text: str, next_part: int = 0) -> None:
        super().__init__(text)
        self.next_part = next_part


class StoreFull(ImagingFault):
    """No room: the file system is full, a quota is reached, or the free-space floor would be crossed."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class StoreClosed(ImagingFault):
    """The image store is not running."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class DamagedImage(ImagingFault):
    """What is on the disk is not what was committed."""


class StoreFault(ImagingFault):
    """The file system refused; the text carries its reason."""
