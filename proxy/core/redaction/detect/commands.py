"""Secrets on command lines and in calls: ``curl -u user:secret``, ``docker login -p secret``, ``login("user", "secret")``.

Owns which commands and calls take a secret, and where in them it stands. What a secret looks like is ``secret_looks``'s.
"""

from __future__ import annotations

import re
from itertools import islice

from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.lookalikes import is_no_secret
from proxy.core.redaction.detect.secret_looks import is_password, is_token
from proxy.core.redaction.detect.secrets import is_template

_FLAG_COMMANDS = (
    b"docker login|podman login|nerdctl login|helm registry login|az login|redis-cli|sshpass|mysql|mysqldump|mysqladmin|mariadb|mongosh"
    b"|mongodump|smbclient|ldapsearch|ldapadd|rabbitmqadmin|influx|cqlsh|snowsql|bcp|sqlcmd|kinit|psexec"
)
_OWN_COMMANDS = b"curl|unzip|zip|mosquitto_pub|mosquitto_sub|sqlplus|net use|htpasswd|vault login|xfreerdp|lftp|snmp-server community"
COMMAND = rb"\b(?:" + _FLAG_COMMANDS + b"|" + _OWN_COMMANDS + rb") "
_NTH_ARGUMENT: dict[bytes, int] = {
    **dict.fromkeys(b"login authenticate httpbasicauth basicauth basic_auth auth setbasicauth networkcredential wifi.begin".split(), 2),
    **dict.fromkeys(b"usernamepasswordcredentials usernamepasswordcredential passwordauthentication".split(), 2),
    **dict.fromkeys(b"jwt.sign jwt.verify jwt.encode jwt.decode".split(), 2),
    **dict.fromkeys(b"getconnection mysqli mysqli_connect mysql_connect directoryentry pdo ftp ftp_tls".split(), 3),
    **dict.fromkeys(b"apikeycredential azurekeycredential iamauthenticator setapikey set_api_key".split(), 1),
}  # fmt: skip
"""Name of a call in lower case -> which of its arguments is the secret."""
CALL = (
    rb"\b(?i:" + b"|".join(re.escape(name) for name in sorted(_NTH_ARGUMENT, key=lambda n: (-len(n), n))) + rb")"
    rb" ?(?:\(|= ?\()[ \t]{0,2}(?:[bfru]?[\"']|[a-z_]{1,24}, ?[\"'])"
)
PIPED = rb"\| ?(?:sudo -S |(?:sudo )?chpasswd|(?:sudo )?passwd --stdin|docker login |podman login )"
"""What reads a password from a pipe: it stands before, behind ``echo``."""

_USER = rb"[ \t](?:-u|--user|--proxy-user|-U)(?:[ \t=]{1,2}|(?=[A-Za-z]))[\"']?[^\s:\"'/]{1,64}:(?P<value>[^\s\"'|;&]{4,128})"
_FLAG = rb"[ \t](?:--password|--pass|--auth|--token|-p|-P|-a|-w)(?:[ \t=]{1,2}|(?=[A-Za-z0-9]))[\"']?(?P<value>[^\s\"'|;&\-][^\s\"'|;&]{4,127})"
_WITH_FLAGS = (re.compile(_FLAG), re.compile(_USER))
_UPPER_FLAG = re.compile(rb"[ \t]-P[ \t]{0,2}[\"']?(?P<value>[^\s\"'|;&\-][^\s\"'|;&]{4,127})")
_FIRST = re.compile(rb" (?P<value>[^\s\"'|;&\-=][^\s\"'|;&=]{5,127})(?=\s|\Z)")
_OWN: dict[bytes, re.Pattern[bytes]] = {
    b"curl": re.compile(_USER),
    b"unzip": _UPPER_FLAG,
    b"zip": _UPPER_FLAG,
    b"mosquitto_pub": _UPPER_FLAG,
    b"mosquitto_sub": _UPPER_FLAG,
    b"sqlplus": re.compile(rb" [^\s/@\"'|;&]{1,64}/(?P<value>[^\s\"'|;&/@]{4,64})@"),
    b"net use": re.compile(rb" (?:[A-Za-z]:|\*)? ?\\{1,4}[^\s\"'|;&]{2,80} (?P<value>[^\s\"'|;&/*][^\s\"'|;&]{4,64})"),
    b"htpasswd": re.compile(rb" -[a-zA-Z]{0,5}b[a-zA-Z]{0,5} (?:[^\s\"'|;&]{1,80} ){1,2}(?P<value>[^\s\"'|;&]{5,64})"),
    b"vault login": _FIRST,
    b"snmp-server community": _FIRST,
    b"xfreerdp": re.compile(rb" /p:[\"']?(?P<value>[^\s\"'|;&]{5,64})"),
    b"lftp": re.compile(rb" -u [^\s,\"'|;&]{1,64},(?P<value>[^\s\"'|;&]{5,64})"),
}
"""Commands that take a password in a way of their own."""
_ARGUMENT = re.compile(
    rb"[ \t\n]{0,40}(?:[bfru]?[\"'](?P<value>[^\"'\n]{0,200})[\"']|[A-Za-z_][A-Za-z0-9_.]{0,40})[ \t\n]{0,8},?"
)
_ECHOED = re.compile(
    rb"(?:echo|printf)(?: -n)?[ \t]{1,2}[\"']?(?:[a-z_][a-z0-9_\-]{0,31}:)?(?P<value>[^\s\"'|;&]{5,128})[\"']?[ \t]{0,2}\Z"
)
_LINE_END = re.compile(rb"(?<!\\)\n")
_REACH = 160
_MAX_FLAGS = 4
"""More flags with a value are not looked at: a line of nothing else is no command."""
_CALL_REACH = 400
_LOCAL_REACH = 90
"""A stream still knows so many characters to the left of a value."""
_NUMBERS = b"0123456789.:/"


def command(ctx: Context, start: int, end: int) -> int:
    """Judge the arguments of the command at [start, end); return where the scan goes on: right behind its name."""
    window_end = min(ctx.size, end + _REACH)
    stop = _LINE_END.search(ctx.data, end, window_end)
    window_end = stop.start() if stop else window_end
    own = _OWN.get(ctx.data[start : end - 1])
    for pattern in (own,) if own is not None else _WITH_FLAGS:
        for found in islice(pattern.finditer(ctx.data, end - 1, window_end), _MAX_FLAGS):
            if _report(ctx, start, found):
                break
    return end


def call(ctx: Context, start: int, end: int) -> int:
    """Judge the argument that is the secret in a call of that name."""
    bracket = ctx.data.find(b"(", start, end)
    nth = _NTH_ARGUMENT[ctx.data[start:bracket].rstrip(b" =").lower()]
    at, limit = bracket + 1, min(ctx.size, end + _CALL_REACH)
    for left in range(nth, 0, -1):
        found = _ARGUMENT.match(ctx.data, at, limit)
        if found is None:
            break
        if left == 1 and found["value"] is not None:
            _report(ctx, start, found, is_key=nth == 1)
        at = found.end()
    return end


def piped(ctx: Context, start: int, end: int) -> int:
    """Judge what is echoed into a command that reads a password."""
    found = None if ctx.local else _ECHOED.search(ctx.data, max(0, start - _REACH), start)
    if found is not None:
        _report(ctx, start, found)
    return end


def _report(ctx: Context, start: int, found: re.Match[bytes], *, is_key: bool = False) -> bool:
    """Note the value when it looks like a secret; tell whether it was one."""
    value: bytes = found["value"]
    if ctx.local and found.start("value") - start > _LOCAL_REACH:
        return False
    if len(value) < 4 or not value.translate(None, _NUMBERS) or is_template(value) or is_no_secret(value):
        return False
    if is_key and is_token(value, explicit=True):
        ctx.add(*found.span("value"), "API_KEY", 4, LABELLED, "LABELLED")
        return True
    if is_key or b" " in value or not is_password(value, explicit=True):
        return False
    ctx.add(*found.span("value"), "PASSWORD", 3, LABELLED)
    return True
