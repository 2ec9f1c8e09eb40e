"""Text of config.yaml that has a shape of its own: URLs, host names, header names, references to secrets.

Owns how each is read and what to say when it is wrong. Does not know which key it stands for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from proxy.core.config.problem import error
from proxy.core.config.schema import Kind, Problems, closest, scalar
from proxy.core.config.settings import AuthHeader, SecretRef
from proxy.core.config.yaml_text import BAD, Bad, Map, Node, Scalar

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]{0,4094}[\x21-\x7e])?\Z")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")
_API_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

_OURS = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host", "keep-alive",
    "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
_CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})


def parse_name(text: str) -> str:
    """Return a name that is safe as a metric label, a header value and a key."""
    if not _NAME.match(text):
        raise ValueError("use lower-case letters, digits, - and _, starting with a letter or digit, at most 63")
    return text


def parse_listen_host(text: str) -> str:
    """Return an IP address or host name to listen on."""
    bare = text.removeprefix("[").removesuffix("]")
    if _is_ip(bare):
        return bare
    if not _HOST.match(text) or text.rpartition(".")[2][:1].isdigit():  # a slip of an IP address
        raise ValueError("write an IP address such as 127.0.0.1 or ::1, or a host name, without scheme and port")
    return text.lower()


def parse_allowed_host(text: str) -> str:
    """Return a host name as it may stand in a Host header: lower case, no port."""
    try:
        return parse_listen_host(text)
    except ValueError:
        raise ValueError("write the host name alone, without scheme, port or path; wildcards are not known") from None


def is_loopback(host: str) -> bool:
    """Say whether only this machine (in a pod: this pod) can reach an address."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_base_url(text: str) -> str:
    """Return a provider's base URL without trailing slash."""
    parts = _split_url(text, ("http", "https"))
    if parts.path.rstrip("/").endswith(("/chat/completions", "/completions", "/embeddings", "/models")):
        raise ValueError("stop before the endpoint: what follows /v1 in a request is added to base_url")
    return text.rstrip("/")


def parse_proxy_url(text: str) -> str:
    """Return a forward proxy's URL."""
    parts = _split_url(text, ("http", "https"))
    if parts.path not in ("", "/"):
        raise ValueError("a forward proxy has no path")
    return text.rstrip("/")


def _split_url(text: str, schemes: tuple[str, ...]) -> SplitResult:
    if not text.isascii() or any(c <= " " or c in '\\"<>`{}|^' for c in text):
        raise ValueError("a URL holds neither spaces nor control characters; write others as %XX")
    parts = urlsplit(text)
    if parts.scheme not in schemes or "://" not in text:
        raise ValueError(f"start it with {' or '.join(s + '://' for s in schemes)}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in a URL: use `api_key: {env: NAME}`")
    if not parts.hostname or not (_is_ip(parts.hostname) or _HOST.match(parts.hostname)):
        raise ValueError("give it a host")
    if parts.port == 0:
        raise ValueError("port 0 cannot be dialled")
    if "?" in text or "#" in text:
        raise ValueError("no query and no fragment; Azure's version belongs in `api_version`")
    if any(segment in ("..", ".") for segment in parts.path.split("/")):
        raise ValueError("no . or .. in the path")
    return parts


def parse_auth_header(text: str) -> AuthHeader:
    """Return how a key is sent: ``authorization: Bearer`` or a header name such as ``api-key``."""
    name, colon, scheme = text.partition(":")
    scheme = scheme.strip()
    if not _TOKEN.match(name) or name.lower() in _OURS or (colon and not _TOKEN.match(scheme)):
        raise ValueError('write "authorization: Bearer", or a header name alone such as api-key')
    return AuthHeader(name.lower(), f"{scheme} " if colon else "")


def parse_header_name(text: str) -> str:
    """Return a header name in lower case that may be added to every request of a provider."""
    if not _TOKEN.match(text):
        raise ValueError("a header name holds letters, digits and -")
    name = text.lower()
    if name in _CREDENTIALS:
        raise ValueError("a key belongs in `api_key`, its header in `auth_header`")
    if name in _OURS or name.startswith("x-readygate-"):
        raise ValueError("the sidecar sets this header itself")
    return name


def parse_header_value(text: str) -> str:
    """Return a header value of printable ASCII."""
    if not _FIELD_VALUE.match(text):
        raise ValueError("printable ASCII only, no line breaks, at most 4096 characters")
    return text


def parse_api_version(text: str) -> str:
    """Return an ``api-version`` that needs no escaping in a query."""
    if not _API_VERSION.match(text):
        raise ValueError('for example "2024-10-21", in quotes')
    return text


def parse_deployment(text: str) -> str:
    """Return an Azure deployment name: it stands in a path."""
    if not _API_VERSION.match(text):
        raise ValueError("letters, digits, - . and _, at most 64")
    return text


def parse_sha256(text: str) -> str:
    """Return 64 lower-case hex digits."""
    if not _SHA256.match(text.lower()):
        raise ValueError("printf %s THE_KEY | sha256sum prints it; the key itself must not stand here")
    return text.lower()


def parse_model(text: str) -> str:
    """Return a model name or glob."""
    if len(text) > 256 or text != text.strip() or not text.isprintable():
        raise ValueError("printable characters, no space at either end, at most 256")
    return text


def parse_store_url(text: str, base_dir: Path) -> str:
    """Return the audit store's URL, with the path of SQLite made absolute under ``base_dir``.

    ``sqlite:///var/audit.db`` is relative, ``sqlite:////var/audit.db`` absolute; ``stdout:`` writes JSON lines. A
    secret that holds the URL goes through here, too, once it is known.

    Raises:
        ValueError: Not such a URL; the message never repeats it.
    """
    if text.startswith("sqlite:///"):
        path = text.removeprefix("sqlite:///")
        if not path or path.endswith("/") or "?" in path or "\0" in path or ":memory:" in path:
            raise ValueError("name a file: sqlite:///var/audit.db")
        return f"sqlite:///{base_dir / path}"
    if text.startswith(("postgresql://", "postgres://")):
        parts = urlsplit(text)
        if not parts.path.strip("/"):
            raise ValueError("name a database: postgresql://host:5432/audit")
        return text
    if text == "stdout:":
        return text
    raise ValueError("use sqlite:///path, postgresql://host:5432/database or stdout:")


def holds_password(url: str) -> bool:
    """Say whether a URL carries a password."""
    return urlsplit(url).password is not None or "password=" in url.lower()


@dataclass(frozen=True, eq=False)
class PathText(Kind):
    """A path, made absolute under the folder of the config file when it is used."""

    what = "a path"

    def read(self, node: Node, path: str, problems: Problems) -> Path | Bad:
        """Return the path as it was written."""
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        if not isinstance(found.value, str) or not found.value.strip() or "\0" in found.value:
            problems.append(error(node.mark, "wrong-type", f"`{path}` expects {self.what}, got {found.text[:60]!r}"))
            return BAD
        return Path(found.value)

    def json_schema(self) -> dict[str, Any]:
        """Return a string with something in it."""
        return {"type": "string", "minLength": 1}


def read_one_of(
    node: Map, path: str, problems: Problems, what: str, keys: Mapping[str, str]
) -> tuple[str, Scalar, str] | None:
    """Return key, node and text of a map that has to hold exactly one of ``keys`` (name -> what its text is)."""
    unknown = [(name, entry) for name, entry in node.entries.items() if name not in keys]
    for name, entry in unknown:
        hint = closest(name, keys) or f"known here: {', '.join(keys)}"
        problems.append(error(entry.mark, "unknown-key", f"no key `{name}` in `{path}`", hint))
    if unknown or len(node.entries) != 1:
        if not unknown:
            got = "both" if node.entries else "neither"
            problems.append(error(node.mark, "bad-value", f"`{path}` expects {what}, got {got}"))
        return None
    name, entry = next(iter(node.entries.items()))
    found = scalar(entry.node, f"{path}.{name}", problems, keys[name])
    if found is None:
        return None
    if not isinstance(found.value, str) or not found.value.strip():
        problems.append(error(found.mark, "wrong-type", f"`{path}.{name}` expects text", "put it in quotes"))
        return None
    return name, found, found.value


def one_of_schema(keys: Iterable[str]) -> dict[str, Any]:
    """Return the JSON Schema of what ``read_one_of`` takes."""
    properties = {name: {"type": "string", "minLength": 1} for name in keys}
    closed = {"additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    return {"type": "object", "properties": properties, **closed}


_SECRET_KEYS: Final = {"env": "a name", "file": "a path"}


@dataclass(frozen=True, eq=False)
class Secret(Kind):
    """A reference to a secret: ``{env: NAME}`` or ``{file: PATH}``."""

    what = "a reference: {env: NAME} or {file: PATH}"

    def read(self, node: Node, path: str, problems: Problems) -> SecretRef | Bad:
        """Return the reference; a value written into the file is refused and not repeated."""
        if isinstance(node, Scalar):
            if scalar(node, path, problems, self.what) is not None:
                text = f"`{path}` must not hold the secret itself"
                problems.append(error(node.mark, "inline-secret", text, f"write {self.what}"))
            return BAD
        if not isinstance(node, Map):
            problems.append(error(node.mark, "wrong-type", f"`{path}` expects {self.what}"))
            return BAD
        return self._reference(node, path, problems)

    def json_schema(self) -> dict[str, Any]:
        """Return an object with exactly one of the two keys."""
        return one_of_schema(_SECRET_KEYS)

    def _reference(self, node: Map, path: str, problems: Problems) -> SecretRef | Bad:
        chosen = read_one_of(node, path, problems, self.what, _SECRET_KEYS)
        if chosen is None:
            return BAD
        name, found, value = chosen
        if name == "file":
            return SecretRef(file=Path(value), mark=found.mark)
        if not _ENV.match(value):  # the text may be the secret itself, so it is not repeated
            text = f"`{path}.env` expects the name of an environment variable"
            problems.append(error(found.mark, "bad-value", text, "letters, digits and _, such as OPENAI_API_KEY"))
            return BAD
        return SecretRef(env=value, mark=found.mark)


class StoreUrl(Kind):
    """A store: a URL without password, or a reference to one that has it. Subclasses say which URLs."""

    def accept(self, text: str) -> str:
        """Return the URL as it is kept. Raises ValueError saying what to write instead, without repeating it."""
        raise NotImplementedError

    def read(self, node: Node, path: str, problems: Problems) -> Any:
        """Return the URL or the reference."""
        if isinstance(node, Map):
            return Secret().read(node, path, problems)
        found = scalar(node, path, problems, self.what)
        if found is None:
            return BAD
        text = str(found.text)
        if holds_password(text):
            hint = f"put the URL in a secret: {path}: {{env: NAME}}"
            problems.append(error(node.mark, "inline-secret", f"`{path}` must not hold a password", hint))
            return BAD
        try:
            return self.accept(text)
        except ValueError as exc:
            problems.append(error(node.mark, "bad-value", f"`{path}` expects {self.what}", str(exc)))
            return BAD

    def json_schema(self) -> dict[str, Any]:
        """Return a URL or a reference to one."""
        return {"anyOf": [{"type": "string", "minLength": 1}, Secret().json_schema()]}


class StoreText(StoreUrl):
    """The audit store; its URL is kept as it was written."""

    what = "sqlite:///path, postgresql://host/database, stdout:, {env: NAME} or {file: PATH}"

    def accept(self, text: str) -> str:
        """Return the URL as it was written."""
        parse_store_url(text, Path())
        return text
