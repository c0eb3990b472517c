"""AWS Signature Version 4, verified: for one method, one path, and the headers that the caller signed.

Source: AWS, "Create a signed AWS API request" (a request is good for five minutes), and "Common errors" for the codes. botocore
could compute the signature, in 0.4 ms; a thousand clients that poll are why it is computed here, and botocore tests it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache

from rayxform.errors import RequestRefusedError

SKEW_S = 300
"""How far a request's time may lie from ours, in seconds."""
SERVICE = "sagemaker"
_ALGORITHM = "AWS4-HMAC-SHA256"
_SCOPE = re.compile(
    r"(?P<key>[\w+=,.@-]{1,256})/(?P<date>\d{8})/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9-]{1,64})/aws4_request"
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True)
class SignedRequest:
    """What was signed.

    Attributes:
        path: the URL's path, as sent; "/", so that it is its own canonical form.
        query: the URL's query; "", so that it is its own canonical form.
        headers: by their names in lower case.
        body: all of it.
    """

    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def verify(request: SignedRequest, keys: Mapping[str, str], now: float) -> None:
    """Check who sent a request.

    Args:
        request: the request.
        keys: secret access keys by access key id.
        now: Unix time in seconds.

    Raises:
        RequestRefusedError: it is not signed, or not by one of the keys, or not now, or was altered.
    """
    if request.path != "/" or request.query:
        raise _refused("InvalidSignatureException", "calls are made to / without a query")
    authorization = request.headers.get("authorization")
    if not authorization:
        raise RequestRefusedError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    before, _, rest = authorization.partition("Signature=")
    signature, comma, after = rest.partition(",")
    claim = _claim(before + after if comma else before)
    if not signature:
        raise _incomplete("Authorization header requires 'Signature' parameter")
    stamp = request.headers.get("x-amz-date", "")
    _check_time(stamp, claim.date, now)
    secret = keys.get(claim.key)
    expected = _signature(request, claim, stamp, secret or "?")
    # The comparison is made for an unknown key as well, so that the time tells nothing of which keys there are.
    is_right = hmac.compare_digest(expected.encode(), signature.strip().encode())
    if secret is None:
        raise _refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    if not is_right:
        raise _refused("InvalidSignatureException", _MISMATCH)


@dataclass(frozen=True)
class _Claim:
    """What an Authorization header says besides the signature: the same for all calls of a client on a day.

    Attributes:
        key: the access key's id.
        date: as YYYYMMDD.
        scope: date, region and service, as they are signed.
        names: the signed headers' names, in their order.
        signed: the same, to look them up.
    """

    key: str
    date: str
    scope: str
    names: tuple[str, ...]
    signed: frozenset[str]


@lru_cache(maxsize=256)
def _claim(unsigned: str) -> _Claim:
    """What an Authorization header says without its signature; many calls say the same."""
    algorithm, _, rest = unsigned.partition(" ")
    if algorithm != _ALGORITHM:
        raise _incomplete(f"the algorithm must be {_ALGORITHM}")
    pairs = (part.strip().partition("=") for part in rest.split(","))
    fields = {name: value for name, _, value in pairs}
    for name in ("Credential", "SignedHeaders"):
        if not fields.get(name):
            raise _incomplete(f"Authorization header requires '{name}' parameter")
    scope = _SCOPE.fullmatch(fields["Credential"])
    if scope is None:
        raise _incomplete("Credential must be KEY/DATE/REGION/SERVICE/aws4_request")
    if scope["service"] != SERVICE:
        raise _refused("InvalidSignatureException", f"Credential should be scoped to correct service: '{SERVICE}'.")
    place = f"{scope['date']}/{scope['region']}/{SERVICE}/aws4_request"
    names = tuple(fields["SignedHeaders"].split(";"))
    return _Claim(scope["key"], scope["date"], place, names, frozenset(names))


def _check_time(stamp: str, date: str, now: float) -> None:
    try:
        signed_at = _unix_time(stamp)
    except ValueError:
        raise _incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header") from None
    if not stamp.startswith(date):
        raise _refused(
            "InvalidSignatureException",
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {stamp}",
        )
    age_s = now - signed_at
    if abs(age_s) > SKEW_S:
        here = f"{datetime.fromtimestamp(now, timezone.utc):%Y%m%dT%H%M%SZ}"
        word = "Signature expired" if age_s > 0 else "Signature not yet current"
        relation = "earlier" if age_s > 0 else "later"
        raise _refused("InvalidSignatureException", f"{word}: {stamp} is now {relation} than {here} by more than 5 min.")


def _signature(request: SignedRequest, claim: _Claim, stamp: str, secret: str) -> str:
    headers = request.headers
    needed = ["host", *[name for name in headers if name.startswith("x-amz-")]]
    if not (claim.signed.issuperset(needed) and headers.keys() >= claim.signed):
        missing = sorted(set(needed) - claim.signed) or sorted(claim.signed - headers.keys())
        raise _refused(
            "InvalidSignatureException", f"'{missing[0]}' must be a 'SignedHeader' in the AWS Authorization, and be sent."
        )
    digest = hashlib.sha256(request.body).hexdigest()
    if headers.get("x-amz-content-sha256", digest) != digest:
        raise _refused("InvalidSignatureException", "The value of x-amz-content-sha256 is not the SHA-256 of the body.")
    lines = "".join([f"{name}:{' '.join(headers[name].split())}\n" for name in claim.names])
    canonical = f"POST\n{request.path}\n{request.query}\n{lines}\n{';'.join(claim.names)}\n{digest}"
    text = f"{_ALGORITHM}\n{stamp}\n{claim.scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    keyed = _keyed(secret, claim.scope).copy()
    keyed.update(text.encode())
    return keyed.hexdigest()


@lru_cache(maxsize=256)
def _unix_time(stamp: str) -> float:
    """What many calls of the same second say."""
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


@lru_cache(maxsize=256)
def _keyed(secret: str, scope: str) -> hmac.HMAC:
    """What signs a text, to be copied: it has the key of a day, a region and the service."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, b"", hashlib.sha256)


def _incomplete(why: str) -> RequestRefusedError:
    return RequestRefusedError("IncompleteSignatureException", why, 400)


def _refused(code: str, why: str) -> RequestRefusedError:
    return RequestRefusedError(code, why, 403)
