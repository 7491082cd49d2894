"""What all parts of the configuration share, and secrets that live elsewhere."""

from typing import Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from balancer.config.scalars import AbsolutePath, Name, bad

SECRET_KINDS = ("file", "env", "credential", "arvados")


class Section(BaseModel):
    """A mapping of the file: known keys only, kinds as written, never changed after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Secret(Section):
    """Where a secret is kept; exactly one of the keys. It is read when it is needed, and again at each reload."""

    file: AbsolutePath | None = Field(
        None, description="File that holds the secret and nothing else; refused when others may read it."
    )
    env: str | None = Field(None, description="Environment variable that holds the secret.")
    credential: Name | None = Field(
        None, description="Name of a systemd credential (`LoadCredential=`), read from `$CREDENTIALS_DIRECTORY`."
    )
    arvados: AbsolutePath | None = Field(
        None, description="Arvados `config.yml` whose `ManagementToken` is the secret; nothing else of it is kept."
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of the keys are set."""
        return tuple(kind for kind in SECRET_KINDS if getattr(self, kind) is not None)

    def __str__(self) -> str:
        return ", ".join(f"{kind} {getattr(self, kind)}" for kind in self.kinds)


def at_least(low: int, high: int = 1 << 53) -> Any:
    """Return the annotation that keeps a whole number between two bounds, both included."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise bad(
                f"{value} is out of range", f"write {low} to {high}" if high < 1 << 53 else f"write {low} or more"
            )
        return value

    return AfterValidator(check)


TlsVersion = Literal["TLSv1.2", "TLSv1.3"]
Names = tuple[Name, ...]
