"""The errors that an API node raises on purpose, each with the status it is answered with."""


class ApiServerError(Exception):
    """Something an operator of a node can act on."""


class SettingsError(ApiServerError):
    """The configuration of the node cannot be used."""


class LauncherError(ApiServerError):
    """No local PostgreSQL can be started."""


class MigrationError(ApiServerError):
    """The database's schema cannot be brought to the level that this program needs."""


class ApiError(ApiServerError):
    """A request that is answered with an error; `str()` is what the client reads.

    `status` is fixed by the class. No class uses 409: the official client retries it ten times.
    """

    status = 422

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequestError(ApiError):
    """The request cannot be parsed."""

    status = 400


class NotLoggedInError(ApiError):
    """No valid token came with the request."""

    status = 401

    def __init__(self, message: str = "Not logged in") -> None:
        super().__init__(message)


class ForbiddenError(ApiError):
    """The token's user may not do this."""

    status = 403

    def __init__(self, message: str = "Forbidden") -> None:
        super().__init__(message)


class NotFoundError(ApiError):
    """There is no such object, or the user may not know of it."""

    status = 404

    def __init__(self, message: str = "Path not found") -> None:
        super().__init__(message)


class MethodNotAllowedError(ApiError):
    """The path is known, the method is not."""

    status = 405

    def __init__(self, message: str = "Method not allowed") -> None:
        super().__init__(message)


class TooLargeError(ApiError):
    """The body is larger than API.MaxRequestSize."""

    status = 413


class InvalidError(ApiError):
    """A value, a filter or a change of state breaks a rule."""

    status = 422


class UnavailableError(ApiError):
    """The node cannot serve now; nothing was changed, another try may succeed."""

    status = 503


class StoreError(ApiError):
    """The database failed in the middle; whether a change was made is not known to the client."""

    status = 500
