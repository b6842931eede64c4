"""`kafka://` URLs and client options, read without the driver, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from rundiff.errors import ConfigurationError

__all__ = ["KafkaAddress", "check_topic", "parse_kafka"]

MESSAGE_SECONDS = 60.0
"""How long the client tries to send a message, unless `kafka_options` says otherwise."""
TRANSACTION_SECONDS = 120.0
"""How long a transaction may last, unless `kafka_options` says otherwise: enough for a batch on a slow line."""
PORT = 9092
_EXAMPLE = "kafka://HOST:9092/TOPIC"
_SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_QUERY = ("sasl", "security", "ssl_ca")
_OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "isolation.level",
        "metadata.broker.list",
        "request.required.acks",
        "transactional.id",
    }
)
"""What the promises of the destination rest on."""
# Kafka's own rule: org.apache.kafka.common.internals.Topic.
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAddress:
    """A topic of a cluster, and how to log in."""

    brokers: tuple[str, ...]
    """Some brokers, each `host:port`, sorted; the others are learned from them."""
    topic: str
    client: Mapping[str, str] = field(repr=False)
    """Properties of librdkafka, `bootstrap.servers` included. They may hold secrets."""

    @property
    def identity(self) -> str:
        """The topic for people and for the stored identity: without login and options."""
        return f"kafka://{','.join(self.brokers)}/{self.topic}"

    @property
    def patience(self) -> float:
        """Seconds in which the client tries to send a message."""
        given = self.client.get("message.timeout.ms") or self.client.get("delivery.timeout.ms") or ""
        return int(given) / 1000 if given.isdigit() and int(given) else MESSAGE_SECONDS

    @property
    def transaction_seconds(self) -> float:
        """Seconds after which the brokers abort a transaction."""
        given = self.client.get("transaction.timeout.ms", "")
        return (
            int(given) / 1000 if given.isdigit() and int(given) else max(TRANSACTION_SECONDS, self.patience)
        )

    @property
    def cluster(self) -> str:
        """The brokers, for messages."""
        return ", ".join(self.brokers)


def parse_kafka(url: str, options: Mapping[str, str]) -> KafkaAddress:
    """Read `kafka://user:password@host:port,host:port/topic?security=sasl_ssl&sasl=SCRAM-SHA-512&ssl_ca=FILE`.

    User and password are percent-decoded. Without `security` a login goes over TLS (`sasl_ssl`), and nothing is
    encrypted where there is no login. `options` are properties of librdkafka's clients, which win. Raises
    `ConfigurationError`, whose message repeats neither the URL nor a value of an option.
    """
    try:
        split = urlsplit(url)
        query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
        login, _, hosts = split.netloc.rpartition("@")
        brokers = tuple(sorted({_broker(host) for host in hosts.split(",")}))
    except ValueError:
        raise ConfigurationError(
            f"The destination's URL can't be read: write it as {_EXAMPLE}, or "
            "kafka://USER:PASSWORD@HOST:9092,HOST:9092/TOPIC, with other characters than letters, digits and -._~ "
            "percent-encoded."
        ) from None
    unknown = next((name for name in query if name not in _QUERY), None)
    if unknown is not None:
        raise ConfigurationError(
            f"A destination kafka:// knows no option {unknown}: use one of {', '.join(_QUERY)}, or give the client's "
            "own properties by kafka_options."
        )
    topic = unquote(split.path.removeprefix("/"))
    if split.fragment or not topic:
        raise ConfigurationError(f"A destination kafka:// needs a topic: {_EXAMPLE}.")
    check_topic(topic, "The destination's topic")
    ours = next((name for name in options if name in _OURS), None)
    if ours is not None:
        raise ConfigurationError(f"kafka_options can't set {ours}: the destination's promises rest on it.")
    client = {"bootstrap.servers": ",".join(brokers), **_security(login, query), **options}
    return KafkaAddress(brokers=brokers, topic=topic, client=client)


def check_topic(topic: str, label: str) -> None:
    """Refuse a name that Kafka allows no topic to have."""
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise ConfigurationError(
            f"{label} must be 1 to 249 letters, digits, dots, underscores and dashes, as Kafka demands."
        )


def _broker(text: str) -> str:
    """Bring `host`, `host:port` or `[address]:port` to one form; raises `ValueError`."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::(\d{1,5}))?", unquote(text))
    if match is None or not 0 < int(match[2] or PORT) < 1 << 16:
        raise ValueError("no broker")
    return f"{match[1].lower()}:{int(match[2] or PORT)}"


def _security(login: str, query: Mapping[str, str]) -> dict[str, str]:
    """Give the client's properties of a login, and of the options behind the question mark."""
    user, _, password = login.partition(":")
    security = query.get("security", "sasl_ssl" if login else "plaintext").lower()
    if security not in _SECURITY:
        raise ConfigurationError(f"A destination's option security must be one of {', '.join(_SECURITY)}.")
    found = {} if security == "plaintext" else {"security.protocol": security}
    if "ssl_ca" in query:
        found["ssl.ca.location"] = query["ssl_ca"]
    if login and not security.startswith("sasl"):
        raise ConfigurationError(
            f"A destination kafka:// with a user and security={security} would log in nowhere: use sasl_ssl, or "
            "leave the user out."
        )
    mechanism = query.get("sasl", "PLAIN").upper()
    if mechanism not in _MECHANISMS:
        raise ConfigurationError(
            f"A destination's option sasl must be one of {', '.join(_MECHANISMS)}; others are set by kafka_options."
        )
    if login:
        found |= {
            "sasl.mechanism": mechanism,
            "sasl.username": unquote(user),
            "sasl.password": unquote(password),
        }
    return found
