"""How a run tells records apart and compares them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from rundiff.compare.conflicts import Strategy, parse_strategy
from rundiff.engine.compared import compared_fields
from rundiff.engine.examining import Signing
from rundiff.engine.fieldsignatures import FieldSignatures, FieldSigner
from rundiff.engine.former import Former
from rundiff.engine.forming import preparation_of
from rundiff.engine.watching import Watch
from rundiff.settings import Comparison, SyncSettings
from rundiff.signing import SigningKey, sign
from rundiff.signing.preparing import Preparation

__all__ = ["ReadingRules"]


class ReadingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How records are told apart and compared."""

    primary_key: tuple[str, ...]
    comparison: Comparison
    strategy: Strategy
    signing_key: SigningKey | None
    full_refresh: bool
    preparation: Preparation = Preparation()
    """What is done to values before they are signed."""
    keep_invalid: bool = False
    """Keep records without a valid key, for quarantine."""
    watch: Watch | None = None
    """What else to look for; None: nothing."""
    former: Former | None = None
    """How the baseline was signed, if otherwise."""
    gaining: FieldSignatures | None = None
    """Where entries are to get field signatures from the records that are read."""

    @classmethod
    def of(
        cls, settings: SyncSettings, signing_key: SigningKey | None, watch: Watch | None = None
    ) -> ReadingRules:
        """Give what the settings ask for; raises `ConfigurationError`."""
        return cls(
            primary_key=settings.primary_key,
            comparison=settings.comparison,
            strategy=parse_strategy(settings.policies.on_conflict),
            signing_key=signing_key,
            full_refresh=settings.full_refresh,
            preparation=preparation_of(settings),
            keep_invalid=settings.policies.on_invalid_key == "quarantine",
            watch=watch,
        )

    def asked(self, names: Sequence[str]) -> list[str]:
        """Choose the fields that the settings compare."""
        return compared_fields(names, self.comparison, self.primary_key)

    def compared(self, names: Sequence[str]) -> list[str]:
        """Choose the fields that the data signature takes: by the rule that the run leaves behind."""
        if self.former is None or self.former.twice:
            return self.asked(names)
        return self.former.compared(names, self.asked(names))

    def before(self, records: pa.RecordBatch) -> list[str] | None:
        """Choose the fields for a signature under the former rule; None if none is needed."""
        if self.former is None or not self.former.twice:
            return None
        names = records.schema.names
        asked = self.asked(names)
        former = self.former.compared(self.former.names(names), asked)
        # A field that is null changes no signature.
        other = [name for name in asked if name not in former and records.column(name).is_valid().true_count]
        return former if self.former.whole or other else None

    def sign_data(self, records: pa.RecordBatch) -> pa.Array:
        """Give data signatures of logged records by the rule that the run leaves behind; null where there is none."""
        names = self.compared(records.schema.names)
        prepared = self.preparation.applied_where_it_fits(records, names)
        return sign(prepared, names, self.signing_key).signatures

    def sign_fields(self, records: pa.RecordBatch) -> pa.StructArray:
        """Give the signatures of single fields by that rule, where `sign_data` gives one; null where there is none."""
        names = [n for n in self.compared(records.schema.names) if n not in self.primary_key]
        return self.field_signer.sign(records, names)

    @property
    def field_signer(self) -> FieldSigner:
        """What signs single fields by the rule that the run leaves behind."""
        return FieldSigner(self.primary_key, self.preparation, self.signing_key)

    def signing(self, records: pa.RecordBatch, compared: Sequence[str]) -> Signing:
        """Ready records to be signed by the rule that the run leaves behind."""
        prepared = self.preparation.applied(records, compared)
        return Signing(prepared, (self.primary_key, compared), self.signing_key)

    def former_signing(self, records: pa.RecordBatch, compared: Sequence[str]) -> Signing | None:
        """Ready records to be signed by the former rule."""
        if self.former is None:
            return None
        typed, astray = self.former.typed(records)
        prepared = self.former.preparation.applied(typed, compared)
        return Signing(prepared, (self.primary_key, compared), self.former.key, astray)

    @property
    def wants_all(self) -> bool:
        """Whether unchanged records matter, too: to rank them, or to hand them to a function."""
        return self.strategy.field is not None or self.strategy.kind == "function"
