"""What all parts of the configuration share, and secrets that live elsewhere."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from balancer.config.scalars import AbsolutePath, Name, bad


class Section(BaseModel):
    """A mapping of the file: known keys only, kinds as written, never changed after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Secret(Section):
    """Where a secret is kept; exactly one of the keys. It is read when it is needed, and again at each reload."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    file: AbsolutePath | None = Field(
        None, description="File that holds the secret and nothing else; refused when others may read it."
    )
    env: str | None = Field(None, description="Environment variable that holds the secret.")
    credential: Name | None = Field(
        None, description="Name of a systemd credential (`LoadCredential=`), read from `$CREDENTIALS_DIRECTORY`."
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of the keys are set."""
        return tuple(kind for kind in type(self).model_fields if getattr(self, kind) is not None)


class ClusterSecret(Secret):
    """Where the cluster's management token is kept; exactly one of the keys. It is read again at each reload."""

    arvados: AbsolutePath | None = Field(
        None, description="Arvados `config.yml` whose `ManagementToken` is the secret; no other is read."
    )


@dataclass(frozen=True, slots=True)
class Between:
    """Annotation that keeps a whole number between two bounds, both included."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the inner schema with the check behind it."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the inner schema with both bounds."""
        return {**handler(schema), "minimum": self.low, "maximum": self.high}

    def _check(self, value: int) -> int:
        if not self.low <= value <= self.high:
            raise bad(f"{value} is out of range", f"write {self.low} to {self.high}")
        return value


TlsVersion = Literal["TLSv1.2", "TLSv1.3"]
Names = tuple[Name, ...]
