"""A small PostgreSQL client on the standard library alone.

The observer of a run must not go through SQLAlchemy or a driver: those are what is being watched, and none
of them need be installed to start a server. It speaks protocol 3.0 with simple queries, which is all that
asking `pg_stat_activity` or creating a database takes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_PROTOCOL = 196608
_SSL_REQUEST = 80877103


class WireError(Exception):
    """The server said no, or could not be talked to.

    sqlstate: the server's five letters, empty when the error is not the server's (refused, timed out, closed).
    """

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class Address:
    """Where a database is and who asks for it. host: a name, an address, or the directory of a unix socket."""

    host: str
    port: int
    user: str
    password: str | None = None
    database: str = "postgres"
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL of libpq or of SQLAlchemy (`postgresql+asyncpg://…`). ValueError says what is wrong with it."""
        parts = urlsplit(url)
        dialect = parts.scheme.partition("+")[0]
        if dialect not in {"postgresql", "postgres"}:
            raise ValueError(f"expected postgresql://user@host:port/database, not {parts.scheme or 'no scheme'}://")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the port is not a number from 0 to 65535 ({error})") from None
        options = dict(parse_qsl(parts.query))
        if "ssl" in options:  # asyncpg's name for it
            options.setdefault("sslmode", options.pop("ssl"))
        user = unquote(parts.username or "") or os.environ.get("PGUSER") or "postgres"
        host = unquote(options.pop("host", "") or parts.hostname or "") or "localhost"
        return cls(
            host=host,
            port=port or int(options.pop("port", "") or 5432),
            user=user,
            password=unquote(parts.password) if parts.password is not None else os.environ.get("PGPASSWORD"),
            database=unquote(parts.path.lstrip("/")) or user,
            options=tuple(sorted(options.items())),
        )

    def with_database(self, name: str) -> Address:
        return replace(self, database=name)

    def url(self, driver: str | None = None) -> str:
        """The URL for SQLAlchemy with this driver (asyncpg, psycopg, psycopg2); without one also for libpq."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        login = quote(self.user, safe="")
        if self.password is not None:
            login += ":" + quote(self.password, safe="")
        options = [
            ("ssl" if name == "sslmode" and driver == "asyncpg" else name, value) for name, value in self.options
        ]
        if self.host.startswith("/"):
            place = ""
            options = [("host", self.host), ("port", str(self.port)), *options]
        else:
            place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        query = f"?{urlencode(options)}" if options else ""
        return f"{scheme}://{login}@{place}/{quote(self.database, safe='')}{query}"

    def __str__(self) -> str:
        """The same without the password, for messages."""
        return replace(self, password=None).url()


class Connection:
    """One connection. Queries from several threads wait for each other."""

    def __init__(self, address: Address, *, timeout: float = 30.0) -> None:
        """Connect and log in. Raises WireError."""
        self.address = address
        self.parameters: dict[str, str] = {}
        self.process_id = 0
        self._lock = threading.Lock()
        self._buffer = b""
        try:
            self._socket = _open_socket(address, timeout)
        except OSError as error:
            raise WireError(_reason(error)) from error
        try:
            self._log_in()
        except BaseException:
            self._socket.close()
            raise

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """Run the statements and return the rows of the last one that has rows, as the server's own text.

        Raises WireError with the SQLSTATE; the connection stays usable after an error of the server's.
        """
        rows: list[tuple[str | None, ...]] = []
        failure: WireError | None = None
        with self._lock:
            self._send(b"Q", sql.encode() + b"\0")
            while True:
                kind, body = self._receive()
                if kind == b"T":
                    rows = []
                elif kind == b"D":
                    rows.append(_row(body))
                elif kind == b"E":
                    failure = failure or _server_error(body)
                elif kind == b"G":  # COPY FROM STDIN: there is nothing to copy from
                    self._send(b"f", b"not supported\0")
                elif kind == b"Z":
                    break
        if failure is not None:
            raise failure
        return rows

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already, which is what was wanted
            self._socket.sendall(b"X" + struct.pack("!I", 4))
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log_in(self) -> None:
        settings = {"user": self.address.user, "database": self.address.database, "application_name": "session-lint"}
        body = b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in settings.items()) + b"\0"
        self._write(struct.pack("!II", len(body) + 8, _PROTOCOL) + body)
        scram: _Scram | None = None
        while True:
            kind, body = self._receive()
            if kind == b"E":
                raise _server_error(body)
            if kind == b"S":
                name, value = body.split(b"\0")[:2]
                self.parameters[name.decode()] = value.decode()
            elif kind == b"K":
                (self.process_id,) = struct.unpack_from("!I", body)
            elif kind == b"Z":
                return
            elif kind == b"R":
                (method,) = struct.unpack_from("!I", body)
                if method == 0:
                    continue
                if self.address.password is None:
                    raise WireError(f"the server wants a password for user {self.address.user}")
                if method == 3:
                    self._send(b"p", self.address.password.encode() + b"\0")
                elif method == 5:
                    self._send(b"p", _md5(self.address.user, self.address.password, body[4:8]) + b"\0")
                elif method == 10 and b"SCRAM-SHA-256" in body[4:].split(b"\0"):
                    scram = _Scram(self.address.password)
                    first = scram.first()
                    self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
                elif method == 11 and scram is not None:
                    self._send(b"p", scram.answer(body[4:]))
                elif method == 12 and scram is not None:
                    scram.verify(body[4:])
                else:
                    raise WireError(f"the server wants a way to log in that is not supported here (method {method})")

    def _send(self, kind: bytes, body: bytes) -> None:
        self._write(kind + struct.pack("!I", len(body) + 4) + body)

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise WireError(_reason(error)) from error

    def _receive(self) -> tuple[bytes, bytes]:
        header = self._read(5)
        (length,) = struct.unpack_from("!I", header, 1)
        return header[:1], self._read(length - 4)

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise WireError(_reason(error)) from error
            if not data:
                raise WireError("the server closed the connection")
            self._buffer += data
        result, self._buffer = self._buffer[:size], self._buffer[size:]
        return result


def identifier(name: str) -> str:
    """The name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text, quoted for SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f" E'{escaped}'" if "\\" in text else f"'{escaped}'"


def scram_verifier(password: str, *, iterations: int) -> str:
    """What PostgreSQL stores for a password; it takes this in place of the password itself.

    With a long random password one iteration is as safe as four thousand, and logging in costs nothing.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key, server_key = _mac(salted, b"Client Key"), _mac(salted, b"Server Key")
    stored = hashlib.sha256(client_key).digest()
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored)}:{_base64(server_key)}"


class _Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"
        self._signature = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def answer(self, challenge: bytes) -> bytes:
        text = challenge.decode()
        fields = dict(part.split("=", 1) for part in text.split(","))
        if not fields["r"].startswith(self._bare.partition("r=")[2]):
            raise WireError("the server's answer to the login is not for this connection")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(fields["s"]), int(fields["i"]))
        without_proof = f"c=biws,r={fields['r']}"
        message = f"{self._bare},{text},{without_proof}".encode()
        client_key = _mac(salted, b"Client Key")
        mask = _mac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(left ^ right for left, right in zip(client_key, mask, strict=True))
        self._signature = _mac(_mac(salted, b"Server Key"), message)
        return f"{without_proof},p={_base64(proof)}".encode()

    def verify(self, final: bytes) -> None:
        if not hmac.compare_digest(final, b"v=" + _base64(self._signature).encode()):
            raise WireError("the server does not know the password either: it is not the one it claims to be")


def _open_socket(address: Address, timeout: float) -> socket.socket:
    if address.host.startswith("/"):
        result = socket.socket(socket.AF_UNIX)
        result.settimeout(timeout)
        try:
            result.connect(str(Path(address.host) / f".s.PGSQL.{address.port}"))
        except BaseException:
            result.close()
            raise
        return result
    plain = socket.create_connection((address.host, address.port), timeout=timeout)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _secured(plain, address)
    except BaseException:
        plain.close()
        raise


def _secured(plain: socket.socket, address: Address) -> socket.socket:
    """TLS as libpq's sslmode has it: `prefer` takes what the server offers, `verify-…` checks who it is."""
    mode = dict(address.options).get("sslmode", "prefer")
    if mode in {"disable", "allow"}:
        return plain
    plain.sendall(struct.pack("!II", 8, _SSL_REQUEST))
    if plain.recv(1) != b"S":
        if mode == "prefer":
            return plain
        raise WireError(f"the server offers no TLS, and sslmode is {mode}")
    context = ssl.create_default_context(cafile=dict(address.options).get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if not mode.startswith("verify-"):
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=address.host)


def _row(body: bytes) -> tuple[str | None, ...]:
    (count,) = struct.unpack_from("!H", body)
    position, values = 2, list[str | None]()
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        if length < 0:
            values.append(None)
        else:
            values.append(body[position : position + length].decode())
            position += length
    return tuple(values)


def _server_error(body: bytes) -> WireError:
    fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}
    return WireError(fields.get(b"M", "unknown error"), fields.get(b"C", ""))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error) or type(error).__name__).lower()


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
