"""The formats of strings that a JSON schema may name, as regular expressions."""

from __future__ import annotations

YEAR = r"[0-9]{4}"
DATE = (
    rf"(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{BYTE}(?:\.{BYTE}){{3}}"
GROUP = r"[0-9a-fA-F]{1,4}"
LAST = rf"(?:{GROUP}:{GROUP}|{IPV4})"
LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
IPV6 = "|".join(
    [rf"(?:{GROUP}:){{6}}{LAST}"]
    + [rf"(?:(?:{GROUP}:){{0,{k - 1}}}{GROUP})?::(?:{GROUP}:){{{5 - k}}}{LAST}" for k in range(1, 6)]
    + [rf"::(?:{GROUP}:){{5}}{LAST}"]
    + [rf"(?:(?:{GROUP}:){{0,5}}{GROUP})?::{GROUP}", rf"(?:(?:{GROUP}:){{0,6}}{GROUP})?::"]
)
DAYS = r"(?:[0-9]+D|[0-9]+M(?:[0-9]+D)?|[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?)"
HOURS = r"T(?:[0-9]+S|[0-9]+M(?:[0-9]+S)?|[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?)"
URI = r"[a-zA-Z][a-zA-Z0-9+.-]*:(?:[a-zA-Z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9a-fA-F]{2})*"

FORMATS = {
    name: f"^(?:{pattern})$"
    for name, pattern in {
        "date": DATE,
        "time": TIME,
        "date-time": f"{DATE}[Tt]{TIME}",
        "duration": rf"P(?:{DAYS}(?:{HOURS})?|{HOURS}|[0-9]+W)",
        "email": rf"{ATOM}(?:\.{ATOM})*@{LABEL}(?:\.{LABEL})*",
        "hostname": rf"{LABEL}(?:\.{LABEL})*",
        "ipv4": IPV4,
        "ipv6": IPV6,
        "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "uri": URI,
    }.items()
}
