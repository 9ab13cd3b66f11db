"""The documented meaning of the error codes in delivery receipts.

North America: Bandwidth/api-docs `site/docs/messaging/errors.mdx` (2023-09), https://dev.bandwidth.com/docs/messaging/errors.
International: `site/docs/messaging/international.mdx` (2022-08). For international codes in MFA receipts the page says
only "contact support".
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

from .._concise import ConciseType

Region: TypeAlias = Literal["north_america", "international"]
ErrorParty: TypeAlias = Literal["client", "server", "ambiguous"]
Reporter: TypeAlias = Literal["bandwidth", "carrier"]

NORTH_AMERICA: Final = "NorthAmericaSMS"
INTERNATIONAL: Final = "GlobalSMS"


@frozen(kw_only=True)
class ErrorFamily(metaclass=ConciseType):
    """The documented facts about an error code.

    Attributes:
        region: list to which the code belongs: ``"north_america"`` (Messaging V2, four digits) or ``"international"``
            (0 to 999).
        fault: the party that caused the error: ``"client"`` (4xxx), ``"server"`` (5xxx) or ``"ambiguous"`` (9xxx);
            None if not documented.
        reported_by: ``"bandwidth"`` or ``"carrier"``; None if not documented.
        permanent: True if sending again is documented to give the same result; False if it may succeed (after a
            carrier's 5xxx: once at most); None if not documented, as for all international codes.
        meaning: the documented text, for ambiguous and international codes; None otherwise.
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


# By the first two digits; the second one identifies the reporter. The schema lacks 40 and 59, but the lists contain
# 4001 and 5999.
_NORTH_AMERICA: Final = {
    **dict.fromkeys((40, 41, 43, 44), _client_error("bandwidth")),
    47: _client_error("carrier"),
    **dict.fromkeys((51, 52, 55, 59), _server_error("bandwidth")),
    56: _server_error("carrier"),
}

_SPECIAL_CODES: Final = {
    # The page says of 4xxx: "Repeating the request will produce the same result"; of 4785: "retry after some time".
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
    """Return the documented facts about an error code; None if it is not documented.

    Args:
        code: `error_code` of a receipt.
        platform: `platform` of the receipt. A code that does not belong to the platform counts as not documented. If
            None, the code alone selects the list.
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
