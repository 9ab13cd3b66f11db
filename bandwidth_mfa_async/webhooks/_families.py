"""What a receipt's error code means, as far as Bandwidth documents it. No I/O.

North America: Bandwidth/api-docs `site/docs/messaging/errors.mdx` (2023-09), https://dev.bandwidth.com/docs/messaging/errors.
International: `site/docs/messaging/international.mdx` (2022-08); for its codes in MFA receipts the page says only
"contact support".
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

Region: TypeAlias = Literal["north_america", "international"]
ErrorParty: TypeAlias = Literal["client", "server", "ambiguous"]
Reporter: TypeAlias = Literal["bandwidth", "carrier"]

NORTH_AMERICA: Final = "NorthAmericaSMS"
INTERNATIONAL: Final = "GlobalSMS"


@frozen(kw_only=True)
class ErrorFamily:
    """What the documents say of an error code.

    Attributes:
        region: whose code it is: ``"north_america"`` (Messaging V2, four digits) or ``"international"`` (0 to 999).
        fault: ``"client"`` (4xxx), ``"server"`` (5xxx) or ``"ambiguous"`` (9xxx); None where nothing is documented.
        reported_by: ``"bandwidth"`` or ``"carrier"``; None where nothing is documented.
        permanent: True when sending again is documented to give the same result, False when it may succeed (after a
            carrier's 5xxx: try once at most), None when nothing is documented, as for all international codes.
        meaning: the documented words, for ambiguous and international codes; None otherwise.
    """

    region: Region
    fault: ErrorParty | None = None
    reported_by: Reporter | None = None
    permanent: bool | None = None
    meaning: str | None = None


def _client_error(by: Reporter, *, permanent: bool = True) -> ErrorFamily:
    return ErrorFamily(region="north_america", fault="client", reported_by=by, permanent=permanent)


def _server_error(by: Reporter) -> ErrorFamily:
    return ErrorFamily(region="north_america", fault="server", reported_by=by, permanent=False)


def _ambiguous_error(meaning: str | None = None) -> ErrorFamily:
    return ErrorFamily(region="north_america", fault="ambiguous", meaning=meaning)


# The second digit says who reported it. 40 and 59 are not in the schema, but 4001 and 5999 are in the lists.
_NORTH_AMERICA: Final = {
    **dict.fromkeys((40, 41, 43, 44), _client_error("bandwidth")),
    47: _client_error("carrier"),
    **dict.fromkeys((51, 52, 55, 59), _server_error("bandwidth")),
    56: _server_error("carrier"),
}

_SPECIAL_CODES: Final = {
    # "Repeating the request will produce the same result", says the page of 4xxx; of this one, "retry after some time".
    4785: _client_error("carrier", permanent=False),
    9902: _ambiguous_error("timed out waiting for the carrier's delivery receipt"),
    9999: _ambiguous_error("the carrier reported a code that Bandwidth does not know"),
}

_INTERNATIONAL: Final = {
    0: "No error",
    1: "Unknown subscriber",
    9: "Illegal subscriber",
    11: "Teleservice not provisioned",
    13: "Call barred",
    15: "CUG reject",
    19: "No SMS support in MS",
    20: "Error in MS",
    21: "Facility not supported",
    22: "Memory capacity exceeded",
    29: "Absent subscriber",
    30: "MS busy for MT SMS",
    36: "Network/Protocol failure",
    44: "Illegal equipment",
    60: "No paging response",
    61: "GMSC congestion",
    63: "HLR timeout",
    64: "MSC/SGSN_timeout",
    70: "SMRSE/TCP error",
    72: "MT congestion",
    75: "GPRS suspended",
    80: "No paging response via MSC",
    81: "IMSI detached",
    82: "Roaming restriction",
    83: "Deregistered in HLR for GSM",
    84: "Purged for GSM",
    85: "No paging response via SGSN",
    86: "GPRS detached",
    87: "Deregistered in HLR for GPRS",
    88: "The MS purged for GPRS",
    89: "Unidentified subscriber via MSC",
    90: "Unidentified subscriber via SGSN",
    112: "Originator missing credit on prepaid account",
    113: "Destination missing credit on prepaid account",
    114: "Error in prepaid system",
    500: "Other error",
    988: "MNP Error",
    989: "Supplier rejected SMS",
    990: "HLR failure",
    991: "Rejected by message text filter",
    992: "Ported numbers not supported on destination",
    993: "Blacklisted sender",
    994: "No credit",
    995: "Undeliverable",
    996: "Validity expired",
    997: "Blacklisted receiver",
    998: "No route",
    999: "Repeated submission (possible looping)",
}


def error_family(code: int | None, platform: str | None = None) -> ErrorFamily | None:
    """Return what is documented of an error code; None where that is nothing.

    Args:
        code: a receipt's `error_code`.
        platform: the receipt's `platform`; a code that is not of its kind means nothing. By default the code decides.
    """
    if code is None:
        return None
    if code < 1000:
        meaning = _INTERNATIONAL.get(code)
        if meaning is None or platform not in {None, INTERNATIONAL}:
            return None
        return ErrorFamily(region="international", meaning=meaning)
    if platform not in {None, NORTH_AMERICA}:
        return None
    if 9000 <= code <= 9999:
        return _SPECIAL_CODES.get(code, _ambiguous_error())
    return _SPECIAL_CODES.get(code) or _NORTH_AMERICA.get(code // 100)
