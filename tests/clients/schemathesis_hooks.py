"""What schemathesis has to be told of the API."""

import json
import uuid

import schemathesis

KEY = "Idempotency-Key"


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    """Bodies of lines: a text is the lines as they are, anything else a line."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


def is_key(value):
    return isinstance(value, str) and 1 <= len(value) <= 128 and value.isprintable()


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """A key that may be one becomes a new one: what a known key is sent with is not looked at, since
    the answer is the message that it names."""
    if case.operation.definition.raw.get("operationId") != "sendMessage":
        return
    new = uuid.uuid4().hex
    if case.headers and is_key(case.headers.get(KEY)):
        case.headers[KEY] = new
    if isinstance(case.body, dict) and is_key(case.body.get("idempotency_key")):
        case.body["idempotency_key"] = new
