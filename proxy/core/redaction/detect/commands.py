"""Secrets on command lines and in calls: ``curl -u user:secret``, ``docker login -p secret``, ``login("user", "secret")``.

Owns which commands and calls take a password, and where in them it stands. What a password looks like is ``announced``'s.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.announced import is_password
from proxy.core.redaction.detect.context import LABELLED, Context
from proxy.core.redaction.detect.secrets import is_template

COMMAND = (
    rb"\b(?:curl|docker login|podman login|nerdctl login|helm registry login|az login|redis-cli|sshpass|mysql|mysqldump"
    rb"|mysqladmin|mariadb|mongosh|mongodump|smbclient|ldapsearch|ldapadd|rabbitmqadmin|influx|cqlsh|snowsql|bcp|sqlcmd|kinit) "
)
CALL = rb"\b(?i:login|authenticate|httpbasicauth|basicauth|basic_auth|auth) ?(?:\(|= ?\()[ \t]{0,2}[bfru]?[\"']"

_BEGIN_CURL = b"curl "
_USER = re.compile(
    rb"[ \t](?:-u|--user|--proxy-user|-U)(?:[ \t=]{1,2}|(?=[A-Za-z]))[\"']?[^\s:\"'/]{1,64}:(?P<value>[^\s\"'|;&]{4,128})"
)
_FLAG = re.compile(
    rb"[ \t](?:-p|-P|-a|-w|--pass|--password|--auth|--token)(?:[ \t=]{1,2}|(?=[A-Za-z0-9]))[\"']?(?P<value>[^\s\"'|;&\-][^\s\"'|;&]{4,127})"
)
_SECOND_ARGUMENT = re.compile(
    rb"[^\"'\n\\]{1,80}[\"'][ \t]{0,2},[ \t]{0,2}[bfru]?[\"'](?P<value>[^\"'\n\\ ]{4,128})[\"']"
)
_LINE_END = re.compile(rb"(?<!\\)\n")
_REACH = 160
_LOCAL_REACH = 90
"""A stream still knows so many characters to the left of a value."""
_NUMBERS = b"0123456789.:/"


def command(ctx: Context, start: int, end: int) -> int:
    """Judge the arguments of the command at [start, end); return where the scan goes on: right behind its name."""
    window_end = min(ctx.size, end + _REACH)
    stop = _LINE_END.search(ctx.data, end, window_end)
    window_end = stop.start() if stop else window_end
    is_curl = ctx.data.startswith(_BEGIN_CURL, start)
    for pattern in (_USER,) if is_curl else (_FLAG, _USER):
        found = pattern.search(ctx.data, end - 1, window_end)
        if found is not None:
            _report(ctx, start, found)
    return end


def call(ctx: Context, start: int, end: int) -> int:
    """Judge the second text of a call that takes user and password."""
    found = _SECOND_ARGUMENT.match(ctx.data, end, end + _REACH)
    if found is not None:
        _report(ctx, start, found)
    return end


def _report(ctx: Context, start: int, found: re.Match[bytes]) -> None:
    if ctx.local and found.start("value") - start > _LOCAL_REACH:
        return
    value: bytes = found["value"]
    if not value.translate(None, _NUMBERS) or is_template(value) or not is_password(value, explicit=True):
        return
    ctx.add(found.start("value"), found.end("value"), "PASSWORD", 3, LABELLED)
