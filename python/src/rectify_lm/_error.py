"""What can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from ._edit import Edit

#: Whose turn it is. ``bad_input``, ``not_found``: the caller's, and the message says what to change. ``harmful``: a
#: guard rejected an edit that would damage the model; ``allow_harm=True`` lifts it. ``unfinished``: a part is done and
#: kept, and the same call finishes the rest. ``cancelled``: somebody stopped it. ``device``: it is missing, was lost,
#: or ran out of memory. ``internal``: anything else, a bug of ours included.
Kind = Literal["bad_input", "not_found", "harmful", "unfinished", "cancelled", "device", "internal"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class RectifyError(Exception):
    """A call that failed. Nothing was changed, unless `partial` says otherwise.

    Attributes:
        kind: Whose turn it is.
        message: What is wrong and where.
        field: The field of the request that is wrong, where it is one: ``target_new``.
        partial: The edits that were made before one of several failed.
    """

    def __init__(self, kind: Kind, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.field = field
        self.partial: Edit | None = None


class RectifyWarning(UserWarning):
    """What a person should know beside the result."""
