"""What engines say in answers of their own, by status."""

ERRORS = {
    400: "the request is malformed",
    405: "the method is not served",
    408: "the request did not arrive in time",
    413: "the request body is too large",
    414: "the request target is too long",
    431: "the request head is too large",
    502: "the node broke the exchange",
    503: "no node can take the request",
    504: "the node did not answer in time",
}
