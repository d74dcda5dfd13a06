"""What a service declares about its .conf file: the declaration is check, default, sample and manual at once.

A model is a frozen pydantic class; every field carries one :class:`Key`::

    block_size: Annotated[int, Key("TransferBlockSize", Integer(512, 4428), "Size of ...", unit="bytes")] = 1428

One rule: a value that the declaration does not allow cannot be in a model, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from pbserv.conf.kinds import Kind


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a file: its name as the manual spells it, the kind of its value and one sentence of help.

    ``extension``: not in the manual. ``empty_is_value``: present but empty is a value of its own, not the default.
    ``later``: read and checked, but another value than the default has no effect yet. ``unsupported``: a value other
    than the default is answered with this text. ``unset``: what an absent default means, in words.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    extension: bool = False
    empty_is_value: bool = False
    later: bool = False
    unsupported: str = ""
    unset: str = ""


@dataclass(frozen=True, slots=True)
class BoundKey:
    """A key with the field that holds it and its default."""

    key: Key
    attribute: str
    default: Any

    @property
    def name(self) -> str:
        return self.key.name

    def parse(self, text: str) -> Any:
        """The value that ``text`` means; empty text is the default or, where declared so, a value. Raises ValueError"""
        if not text:
            return "" if self.key.empty_is_value else self.default
        return self.key.kind.parse(text)

    def show(self, value: Any) -> str:
        return self.key.kind.show(value)

    def warning(self, text: str) -> str:
        """Why this accepted text deserves a word to the administrator; empty when it does not."""
        if not text:
            return ""
        if self.key.kind.parse(text) != self.default:
            if self.key.unsupported:
                return f"{text}: {self.key.unsupported}"
            if self.key.later:
                return f"the value {text} has no effect yet"
        return self.key.kind.note(text)


class ConfModel(BaseModel):
    """Base of the four files. ``title`` heads the sample; ``log_name`` is the log file's name when none is set."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    title: ClassVar[str]
    log_name: ClassVar[str]

    @field_validator("*", mode="after")
    @classmethod
    def _allowed(cls, value: Any, info: ValidationInfo) -> Any:
        bound = next(each for each in keys_of(cls) if each.attribute == info.field_name)
        text = bound.show(value)
        if text:  # empty: None, "" and () say "nothing"; the type has decided whether that is possible
            bound.key.kind.parse(text)
        return value

    def log_path(self, log_directory: Path) -> Path | None:
        """Where this service logs: the file that is set, taken below ``log_directory`` when it is not absolute,
        else ``log_directory``/``log_name``. None: no log file at all."""
        chosen: Path | None = getattr(self, "log_file", None)
        return log_directory / (chosen or self.log_name)


M = TypeVar("M", bound=ConfModel)


@dataclass(frozen=True, slots=True)
class ConfFile(Generic[M]):
    """One file of the configuration directory: its model and the stems it may have, the preferred one first."""

    stems: tuple[str, ...]
    model: type[M]

    @property
    def names(self) -> tuple[str, ...]:
        """File names that are accepted."""
        return tuple(f"{stem}.conf" for stem in self.stems)

    @property
    def name(self) -> str:
        """The file name that we write."""
        return self.names[0]


def keys_of(model: type[ConfModel]) -> tuple[BoundKey, ...]:
    """All keys in the order of declaration; raises TypeError when a field has no :class:`Key`."""
    return tuple(_bind(model).values())


def keys_by_name(model: type[ConfModel]) -> Mapping[str, BoundKey]:
    """The same by lower-case name; keys are compared without regard to case."""
    return _bind(model)


@cache
def _bind(model: type[ConfModel]) -> Mapping[str, BoundKey]:
    found: dict[str, BoundKey] = {}
    for attribute, field in model.model_fields.items():
        declared = [each for each in field.metadata if isinstance(each, Key)]
        if len(declared) != 1:
            raise TypeError(f"{model.__name__}.{attribute} needs exactly one Key")
        found[declared[0].name.lower()] = BoundKey(declared[0], attribute, field.default)
    return found
