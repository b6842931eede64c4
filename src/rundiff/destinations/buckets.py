"""Buckets of object stores: read from URLs, opened by `obstore`, their failures told in sentences.

Credentials come from the environment, as the stores' own tools take them, never from a URL, which is
stored and shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from rundiff.errors import ConfigurationError, DestinationError

__all__ = ["Bucket", "parse_bucket"]

_OPTIONS = {"s3": ("endpoint", "region"), "gs": (), "az": ("account", "endpoint")}
_TITLES = {"s3": "bucket", "gs": "bucket", "az": "container"}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": (),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_PLAIN = re.compile(r"[\w .!'()=+,@&$;:/-]+")
"""What object names may hold without being spelled otherwise by one tool or another."""
_METADATA_SERVICE = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal")
_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")
_ANSWER = re.compile(r"<Code>(.*?)</Code>(?:.*?<Message>(.*?)</Message>)?", re.DOTALL)
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_SECONDS = 30
_SLOWEST = 1 << 19
"""Bytes a second at which an upload still comes to its end."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix in a bucket of an object store."""

    scheme: str
    name: str
    prefix: str
    """Without slashes around it."""
    options: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def address(self) -> str:
        """The place for people and for the stored identity; its endpoint tells servers apart."""
        told = [f"{name}={self.options[name]}" for name in ("account", "endpoint") if name in self.options]
        return f"{self.scheme}://{self.name}/{self.prefix}" + (f"?{'&'.join(told)}" if told else "")

    def open(self, size: int = 0) -> Any:
        """Open the prefix as a store of `obstore`; `size` is how many bytes one request may have to send."""
        from obstore.store import AzureStore, GCSStore, S3Store

        endpoint = self.options.get("endpoint") or next(
            (os.environ[name] for name in _ENDPOINTS[self.scheme] if os.environ.get(name)), None
        )
        config: dict[str, Any] = {} if endpoint is None else {"endpoint": endpoint}
        if "region" in self.options:
            config["region"] = self.options["region"]
        if "account" in self.options:
            config["account_name"] = self.options["account"]
        kinds: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        return kinds[self.scheme](
            self.name,
            prefix=self.prefix,
            config=config,
            client_options={
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
                "timeout": timedelta(seconds=_SECONDS + size // _SLOWEST),
            },
            retry_config=_RETRIES,
        )

    def failure(self, error: Exception) -> Exception | None:
        """Give an error of `obstore` as one of Rundiff's, None for any other error."""
        from obstore.exceptions import BaseError

        # Some of its errors are of Python's own kinds; those of files have a number.
        if not isinstance(error, BaseError) and (not isinstance(error, OSError) or error.errno is not None):
            return None
        told = str(error).partition("\n\nDebug source")[0]
        said = _ANSWER.search(told)
        code = said[1] if said else ""
        if code in ("NoSuchBucket", "ContainerNotFound"):
            return ConfigurationError(
                f"There is no {_TITLES[self.scheme]} {self.name} at {self.address}: create it, or name another one."
            )
        if _METADATA_SERVICE.search(told):
            return DestinationError(
                f"No credentials for {self.address} were found: set {_CREDENTIALS[self.scheme]} in the environment, "
                "then run again."
            )
        reason = (
            ": ".join(part.strip().rstrip(".") for part in said.groups() if part) if said else _short(told)
        )
        if _REFUSED.search(told):
            return DestinationError(
                f"{self.address} refuses these credentials ({reason}): they must allow to list, read, write and delete "
                "objects there. Mend them, then run again."
            )
        return DestinationError(
            f"{self.address} can't be reached or written ({reason}). Mend it, then run again."
        )


def _short(told: str) -> str:
    """Bring a driver's message to one line without the options of URLs, which may hold a signature."""
    line = " ".join(re.sub(r"\?\S+", "", told).split())
    return line[:300].removesuffix(".")


def parse_bucket(url: str) -> Bucket:
    """Read `s3://bucket/prefix.parquet?option=value`; the prefix stands as it is written.

    Raises `ConfigurationError`, whose message never repeats the URL.
    """
    scheme = url.partition("://")[0].lower()
    example = f"{scheme}://{_TITLES[scheme].upper()}/PREFIX.parquet"
    split = urlsplit(url)
    if "@" in split.netloc or ":" in split.netloc:
        raise ConfigurationError(
            f"The destination {scheme}:// takes no login in its URL, where it would be stored and shown: write "
            f"{example}, and set {_CREDENTIALS[scheme]} in the environment."
        )
    prefix = split.path.strip("/")
    segments = prefix.split("/")
    if not split.netloc or not prefix:
        raise ConfigurationError(
            f"The destination {scheme}:// needs a {_TITLES[scheme]} and a prefix: {example}."
        )
    if not _PLAIN.fullmatch(prefix) or any(part in ("", ".", "..") for part in segments) or split.fragment:
        raise ConfigurationError(
            f"The prefix of the destination {scheme}:// holds an empty part, a dot part or a sign that stores spell in "
            f"different ways: use letters, digits and -_.= between single slashes, as in {example}."
        )
    try:
        options = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
    except ValueError:
        raise ConfigurationError(
            f"The options of the destination {scheme}:// can't be read: write {example}."
        ) from None
    known = _OPTIONS[scheme]
    if not options.keys() <= set(known):
        shown = f"only {' and '.join(known)}" if known else "none"
        raise ConfigurationError(
            f"Of the options that follow the URL of the destination {scheme}://, it takes {shown}; credentials stand "
            f"in the environment: {_CREDENTIALS[scheme]}."
        )
    return Bucket(scheme=scheme, name=split.netloc, prefix=prefix, options=options)
