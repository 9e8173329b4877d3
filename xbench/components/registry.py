"""Finding components: by entry point, or by `module:attribute` for code that has no package.

Listing reads package metadata only. A component is imported when it is loaded, and what goes wrong then is
that component's error alone.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal, get_args, overload

from xbench.components.specs import DatasetSpec, Family, ModelSpec, OptimizerSpec, Spec
from xbench.errors import XbenchError
from xbench.text import MAX_VALUE_CHARS, escape_controls, shorten

Kind = Literal["model", "optimizer", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SPEC_TYPES: dict[Kind, type[Spec]] = {"model": ModelSpec, "optimizer": OptimizerSpec, "dataset": DatasetSpec}


@dataclass(frozen=True)
class Registration:
    """One name in the registry and every distribution that claims it (more than one is an error)."""

    kind: Kind
    name: str
    claims: tuple[EntryPoint, ...]

    @property
    def distributions(self) -> tuple[str, ...]:
        """The claiming distributions, as `name version`."""
        return tuple(_distribution(claim) for claim in self.claims)

    def load(self) -> Spec | Family:
        """Import the component's spec, or the family that the name stands for.

        Raises:
            XbenchError: two distributions claim the name, the import fails, or it is neither a spec of its
                kind nor a family.
        """
        if len(self.claims) > 1:
            claimants = " and ".join(self.distributions)
            raise XbenchError(
                f"{self.kind} '{self.name}' is claimed by {claimants}",
                hint="uninstall one of them, or ask its author for another entry point name",
            )
        claim = self.claims[0]
        where = f"{self.kind} '{self.name}' of {self.distributions[0]} ({claim.value})"
        try:
            component = claim.load()
        except (Exception, SystemExit) as error:  # a broken plugin must not take the rest with it
            raise XbenchError(f"{where} cannot be imported: {_one_line(error)}") from error
        return component if isinstance(component, Family) else _check_spec(self.kind, component, where)

    def load_spec(self, reference: str) -> Spec:
        """The spec that is meant by this name, or by `NAME/MEMBER` if it is that of a family.

        Raises:
            XbenchError: as `load`; or a family's member is not named, is none, or is broken.
        """
        component = self.load()
        if isinstance(component, Family):
            return self._load_member(component, reference.removeprefix(self.name).removeprefix("/"))
        if reference != self.name:
            raise XbenchError(
                f"{self.kind} '{self.name}' is no family: there is no '{reference}'",
                hint=f"`xbench info {self.name}` tells what it is",
            )
        return component

    def _load_member(self, family: Family, member: str) -> Spec:
        if not member:
            raise XbenchError(
                f"'{self.name}' is a family of {self.kind}s: name one of them, `{self.name}/NAME`",
                hint=f"`xbench info {self.name}` tells more",
            )
        where = f"{self.kind} '{self.name}/{member}' of {self.distributions[0]}"
        try:
            spec = family.load_member(member)
        except XbenchError:
            raise
        except (Exception, SystemExit) as error:  # a plugin's function may raise anything
            raise XbenchError(f"{where} is broken: {_one_line(error)}") from error
        return _check_spec(self.kind, spec, where)


@cache
def registrations(kind: Kind) -> dict[str, Registration]:
    """All registered names of one kind, sorted; nothing is imported."""
    claims: dict[str, dict[str, EntryPoint]] = {}
    for entry_point in entry_points(group=f"xbench.{kind}s"):
        # One distribution can be seen twice (an editable install beside its sources): that is one claim.
        claims.setdefault(entry_point.name, {}).setdefault(_distribution(entry_point), entry_point)
    return {name: Registration(kind, name, tuple(claims[name].values())) for name in sorted(claims)}


@overload
def load(kind: Literal["model"], reference: str, import_dirs: Sequence[str] = ()) -> ModelSpec: ...
@overload
def load(kind: Literal["optimizer"], reference: str, import_dirs: Sequence[str] = ()) -> OptimizerSpec: ...
@overload
def load(kind: Literal["dataset"], reference: str, import_dirs: Sequence[str] = ()) -> DatasetSpec: ...
@overload
def load(kind: Kind, reference: str, import_dirs: Sequence[str] = ()) -> Spec: ...
def load(kind: Kind, reference: str, import_dirs: Sequence[str] = ()) -> Spec:
    """The spec that a suite means by `reference`: a registered name, `family/member`, or `module:attribute`.

    Args:
        import_dirs: folders that `module:attribute` may be imported from; with none, it is refused.

    Raises:
        XbenchError: there is no such component, or it cannot be imported.
    """
    if ":" in reference:
        return _import_reference(kind, reference, import_dirs)
    registration = find(kind, reference)
    if registration is None:
        raise XbenchError(unknown_name(kind, reference), hint=listing_hint(kind))
    return registration.load_spec(reference)


def find(kind: Kind, reference: str) -> Registration | None:
    """The registration of a name, or of the family in front of its first "/"; nothing is imported."""
    known = registrations(kind)
    return known.get(reference) or known.get(reference.partition("/")[0])


def origin(kind: Kind, reference: str) -> str:
    """The distribution behind a component, as `name version`; "" for code that has no package."""
    registration = None if ":" in reference else find(kind, reference)
    return " and ".join(registration.distributions) if registration else ""


def unknown_name(kind: Kind, name: str) -> str:
    """The message for a name that nothing claims, with a guess at what was meant."""
    guess = did_you_mean(name.partition("/")[0], registrations(kind))
    return f"unknown {kind} '{shorten(escape_controls(name))}'.{guess}"


def listing_hint(kind: Kind) -> str:
    """Where to see the names that exist."""
    return f"`xbench list {kind}s` shows all {len(registrations(kind))}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` if some known name is close, else nothing."""
    if len(name) > MAX_VALUE_CHARS:
        return ""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _import_reference(kind: Kind, reference: str, import_dirs: Sequence[str]) -> Spec:
    if not import_dirs:
        raise XbenchError(
            f"{kind} '{reference}' is code outside of any package, which a suite alone may not import",
            hint="allow its folder: `xbench run SUITE --allow-import DIR`",
        )
    module_name, _, attribute = reference.partition(":")
    sys.path[:0] = [directory for directory in import_dirs if directory not in sys.path]
    try:
        # Before it is imported: a module of another folder does what it does as it is imported.
        if all(_source_of(reference, directory) is None for directory in import_dirs):
            raise ModuleNotFoundError(f"No module named '{module_name}'")
        module = importlib.import_module(module_name)
        if not any(Path(module.__file__ or "").is_relative_to(directory) for directory in import_dirs):
            raise ImportError(f"module '{module_name}' lies elsewhere ({module.__file__})")
        component = getattr(module, attribute)
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        searched = ", ".join(import_dirs)
        raise XbenchError(
            f"{kind} '{reference}' cannot be imported: {_one_line(error)}",
            hint=f"`module:attribute` is looked for in {searched}",
        ) from error
    if isinstance(component, Spec):
        return _check_spec(kind, component, f"{kind} '{reference}'")
    if not callable(component):
        raise XbenchError(f"{kind} '{reference}' is a {type(component).__name__}, not a factory or a spec")
    return _SPEC_TYPES[kind](factory=component, summary=f"imported from {module_name}")


def _source_of(reference: str, directory: str) -> Path | None:
    """The file of a `module:attribute` below a folder; None if there is none, or the name is no module's."""
    parts = reference.partition(":")[0].split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    base = Path(directory, *parts)
    suffixes = importlib.machinery.all_suffixes()
    candidates = [*(base.with_name(f"{base.name}{suffix}") for suffix in suffixes), base / "__init__.py"]
    return next((path for path in candidates if path.is_file()), None)


def _check_spec(kind: Kind, spec: object, where: str) -> Spec:
    expected = _SPEC_TYPES[kind]
    if not isinstance(spec, expected):
        raise XbenchError(f"{where} is a {type(spec).__name__}, not an xbench.{expected.__name__}")
    return spec


def _distribution(entry_point: EntryPoint) -> str:
    # Entry points of a hand-made group (in tests, say) have no distribution.
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else "no distribution"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
