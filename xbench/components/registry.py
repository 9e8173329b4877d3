"""Find components by entry point, or by `module:attribute` for code without a package.

Listing reads package metadata only. A component is imported when it is loaded, and a failed import affects no
other component.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal, get_args, overload

from packaging.requirements import Requirement

from xbench.components.code_files import ImportDirs, PackedComponent
from xbench.components.specs import DatasetSpec, Family, ModelSpec, OptimizerSpec, Spec
from xbench.components.tasks import Problem
from xbench.errors import XbenchError
from xbench.text import MAX_VALUE_CHARS, count_edits, escape_controls, shorten

Kind = Literal["model", "optimizer", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Names that share the most characters with an unknown one, among which the suggestion is chosen.
_MAX_SIMILAR = 10

_SPEC_TYPES: dict[Kind, type[Spec]] = {"model": ModelSpec, "optimizer": OptimizerSpec, "dataset": DatasetSpec}


@dataclass(frozen=True)
class Registration:
    """A name in the registry, with every distribution that claims it (more than one is an error)."""

    kind: Kind
    name: str
    claims: tuple[EntryPoint, ...]

    @property
    def distributions(self) -> tuple[str, ...]:
        """The distributions that claim the name, each as `name version`."""
        return tuple(_name_distribution(claim) for claim in self.claims)

    def load(self) -> Spec | Family:
        """Import the spec or the family that the entry point refers to.

        Raises:
            XbenchError: several distributions claim the name, the import fails, or the object is neither a
                spec of this kind nor a family.
        """
        if len(self.claims) > 1:
            claimants = " and ".join(self.distributions)
            raise XbenchError(
                f"{self.kind} '{self.name}' is claimed by {claimants}",
                hint="uninstall one of them, or ask the author of one to rename its entry point",
            )
        claim = self.claims[0]
        where = f"{self.kind} '{self.name}' of {self.distributions[0]} ({claim.value})"
        try:
            component = claim.load()
        except (Exception, SystemExit) as error:  # a broken plugin must not break the others
            raise XbenchError(f"{where} cannot be imported: {_describe(error)}") from error
        if isinstance(component, Problem):
            return make_spec(self.kind, component, where, f"of {self.name}")
        return component if isinstance(component, Family) else _check_spec(self.kind, component, where)

    def load_spec(self, reference: str) -> Spec:
        """Load the spec for a reference: this name, or `NAME/MEMBER` if the name is a family.

        Raises:
            XbenchError: see `load`; or the reference to a family names no member, or one that is unknown or
                broken.
        """
        component = self.load()
        if isinstance(component, Family):
            return self._load_member(component, reference.removeprefix(self.name).removeprefix("/"))
        if reference != self.name:
            raise XbenchError(
                f"{self.kind} '{self.name}' is not a family, so there is no '{reference}'",
                hint=f"see `xbench info {self.name}`",
            )
        return component

    def _load_member(self, family: Family, member: str) -> Spec:
        if not member:
            raise XbenchError(
                f"'{self.name}' is a family of {self.kind}s: name one of them as `{self.name}/NAME`",
                hint=f"see `xbench info {self.name}`",
            )
        where = f"{self.kind} '{self.name}/{member}' of {self.distributions[0]}"
        try:
            spec = family.load_member(member)
        except XbenchError:
            raise  # it may say more of a name that is not a member's, such as that it was changed
        except (Exception, SystemExit) as error:  # a plugin's function may raise anything
            self.check_member(family, member)
            raise XbenchError(f"{where} is broken: {_describe(error)}") from error
        self.check_member(family, member)
        return _check_spec(self.kind, spec, where)

    def check_member(self, family: Family, member: str) -> None:
        """Check that a family that lists its members has one of this name.

        Raises:
            XbenchError: it has none, or its members cannot be listed.
        """
        if family.members is None:
            return
        try:
            members = family.members()
        except (Exception, SystemExit) as error:  # a plugin's function may raise anything
            whose = f"{self.kind}s '{self.name}' of {self.distributions[0]}"
            raise XbenchError(f"the members of {whose} cannot be listed: {_describe(error)}") from error
        if member not in members:
            raise XbenchError(
                f"'{self.name}' is a family of {self.kind}s without a member "
                f"'{shorten(escape_controls(member))}'.{suggest_name(member, members)}",
                hint=f"`xbench info {self.name}` lists its members",
            )


@cache
def registrations(kind: Kind) -> dict[str, Registration]:
    """Return all registrations of one kind by name, sorted, without importing anything."""
    claims: dict[str, dict[str, EntryPoint]] = {}
    for entry_point in entry_points(group=f"xbench.{kind}s"):
        # A distribution that is listed twice (an editable install beside its sources) makes one claim.
        claims.setdefault(entry_point.name, {}).setdefault(_name_distribution(entry_point), entry_point)
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
    """Load the spec for a reference: a registered name, `family/member`, or `module:attribute`.

    Args:
        import_dirs: folders that `module:attribute` may be imported from. If empty, such a reference is
            refused. As `ImportDirs`, it may also hold components that were registered from Python.

    Raises:
        XbenchError: there is no such component, or it cannot be imported.
    """
    packed = ImportDirs.of(import_dirs).find_packed(kind, reference)
    if packed is not None:
        return _unpack(packed)
    if ":" in reference:
        component = import_reference(kind, reference, import_dirs)
        summary = f"imported from {reference.partition(':')[0]}"
        return make_spec(kind, component, f"{kind} '{reference}'", summary)
    registration = find(kind, reference)
    if registration is None:
        raise XbenchError(describe_unknown_name(kind, reference), hint=write_listing_hint(kind))
    return registration.load_spec(reference)


def find(kind: Kind, reference: str) -> Registration | None:
    """Find the registration of a name, or of the family before its first "/", without importing anything."""
    known = registrations(kind)
    return known.get(reference) or known.get(reference.partition("/")[0])


def origin(kind: Kind, reference: str) -> str:
    """Return the distribution that provides a component as `name version`; "" for code without a package.

    For a plugin, the packages that it requires follow, such as `xbench-timm 0.1.0 (timm 1.0.31)`: results
    depend on them as well.
    """
    registration = None if ":" in reference else find(kind, reference)
    if registration is None:
        return ""
    distributions = [claim.dist for claim in registration.claims if claim.dist is not None]
    required = [name for distribution in distributions for name in _list_required(distribution)]
    described = " and ".join(registration.distributions)
    return f"{described} ({', '.join(required)})" if required else described


def describe_unknown_name(kind: Kind, name: str) -> str:
    """Write the message for an unregistered name, with a suggestion (see `suggest_component`)."""
    return f"unknown {kind} '{shorten(escape_controls(name))}'.{suggest_component(name, [kind])}"


def describe_unknown_problem(name: str) -> str:
    """Write the message for a name that is neither a model nor a dataset, with a suggestion."""
    both = registrations("model").keys() & registrations("dataset").keys()
    return f"unknown problem '{shorten(escape_controls(name))}'.{suggest_name(name, both)}"


def suggest_component(name: str, kinds: Sequence[Kind]) -> str:
    """Return ` Did you mean 'x'?` if families have a member of an unregistered name, or if the name of a
    registered component of these kinds is similar; otherwise "".
    """
    similar = suggest_name(name.partition("/")[0], [known for kind in kinds for known in registrations(kind)])
    # Families of models import torch to list their members, which takes seconds.
    listed = [kind for kind in kinds if kind == "optimizer" or not similar]
    members = list(dict.fromkeys(member for kind in listed for member in _find_members(kind, name)))
    if not members:
        return similar
    quoted = " or ".join(f"'{member}'" for member in members)
    return f" Did you mean {quoted}?"


def _find_members(kind: Kind, name: str) -> Iterator[str]:
    """Find the members of families that have a name, as `family/member`. Case does not matter.

    Families that are broken have none.
    """
    for registration in registrations(kind).values():
        try:
            component = registration.load()
            listed = component.members() if isinstance(component, Family) and component.members else ()
        except (Exception, SystemExit):  # a plugin's function may raise anything
            continue
        for member in listed:
            if member.casefold() == name.casefold():
                yield f"{registration.name}/{member}"


def write_listing_hint(kind: Kind) -> str:
    """Write the hint that says how to list the names of a kind."""
    return f"`xbench list {kind}s` shows all {len(registrations(kind))}"


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` if a known name is similar; otherwise "". Case does not matter.

    Of the similar names, the one with the fewest edits is suggested, and first one with the same letters:
    `adma` is closer to `adam` than to `adamax`, and `adawm` is more likely `adamw` than `adam`.
    """
    if len(name) > MAX_VALUE_CHARS:
        return ""
    typed, folded = name.casefold(), {other.casefold(): other for other in known}
    close = difflib.get_close_matches(typed, folded, n=_MAX_SIMILAR)
    if not close:
        return ""
    best = min(close, key=lambda other: (count_edits(typed, other), sorted(typed) != sorted(other)))
    return f" Did you mean '{folded[best]}'?"


def make_spec(kind: Kind, component: object, where: str, summary: str) -> Spec:
    """Return a spec, or make one of a factory or of a part of a problem.

    Args:
        component: a spec of the kind, a factory, or a `Problem`.
        where: how messages name the component.
        summary: the summary of a factory's spec.

    Raises:
        XbenchError: the component is neither, or the problem names a component that is not registered.
    """
    if isinstance(component, Problem):
        if kind == "optimizer":
            raise XbenchError(f"{where} is an xbench.Problem, which has no optimizer")
        component = component.component(kind)
        if isinstance(component, str):
            return _load_named(kind, component, where)
    if isinstance(component, Spec):
        return _check_spec(kind, component, where)
    if not callable(component):
        raise XbenchError(f"{where} is a {type(component).__name__}, not a factory or a spec")
    return _SPEC_TYPES[kind](factory=component, summary=summary)


def _load_named(kind: Kind, name: str, where: str) -> Spec:
    """Load the registered component that a problem names."""
    registration = find(kind, name)
    if registration is None:
        hint = f"give the factory instead of '{name}'" if ":" in name else write_listing_hint(kind)
        raise XbenchError(f"{where}: {describe_unknown_name(kind, name)}", hint)
    return registration.load_spec(name)


@cache
def _unpack(packed: PackedComponent) -> Spec:
    try:
        return pickle.loads(packed.path.read_bytes())
    except Exception as error:  # its modules may not be importable here, or may raise anything
        raise XbenchError(
            f"{packed.kind} '{packed.name}' cannot be loaded in a worker process: {_describe(error)}",
            hint="a module that it uses must be importable without the script, or the script must define it",
        ) from error


def import_reference(what: str, reference: str, import_dirs: Sequence[str]) -> object:
    """Import the object that a `module:attribute` names.

    Args:
        what: the kind of the object, for messages.
        import_dirs: folders that it may be imported from.

    Raises:
        XbenchError: no folder is allowed, or the object cannot be imported from any of them.
    """
    if not import_dirs:
        raise XbenchError(
            f"{what} '{reference}' is code outside any package, which is not imported unless you allow it",
            hint="allow its folder with `--allow-import DIR`",
        )
    module_name, _, attribute = reference.partition(":")
    sys.path[:0] = [directory for directory in import_dirs if directory not in sys.path]
    try:
        # Check this before the import, which would already run the code of a module from another folder.
        if all(_find_source(reference, directory) is None for directory in import_dirs):
            raise ModuleNotFoundError(f"No module named '{module_name}'")
        module = importlib.import_module(module_name)
        if not any(Path(module.__file__ or "").is_relative_to(directory) for directory in import_dirs):
            raise ImportError(f"module '{module_name}' was imported from another folder ({module.__file__})")
        return getattr(module, attribute)
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        searched = ", ".join(import_dirs)
        raise XbenchError(
            f"{what} '{reference}' cannot be imported: {_describe(error)}",
            hint=f"xbench looks for the module in {searched}",
        ) from error


def _find_source(reference: str, directory: str) -> Path | None:
    """Find the file of a `module:attribute` below a folder.

    Returns:
        None if there is no such file, or the module's name is not valid.
    """
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


# Packages whose versions are recorded with every run.
_RECORDED = ("xbench", "torch", "torchvision", "numpy")


@lru_cache(maxsize=64)
def _list_required(distribution: Distribution) -> list[str]:
    """List the installed packages that a plugin requires, each as `name version`."""
    if distribution.name == "xbench":
        return []
    required = (Requirement(line) for line in distribution.requires or ())
    needed = [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"{name} {_find_version(name)}" for name in sorted(needed) if name not in _RECORDED]


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is missing"


def _name_distribution(entry_point: EntryPoint) -> str:
    # Entry points that are made by hand, as in tests, have no distribution.
    return "no distribution" if entry_point.dist is None else _name_and_version(entry_point.dist)


@lru_cache(maxsize=64)  # asking parses the distribution's metadata, which includes its readme
def _name_and_version(distribution: Distribution) -> str:
    return f"{distribution.name} {distribution.version}"


def _describe(error: BaseException) -> str:
    from xbench.components.tracebacks import describe_error  # which imports this module

    return describe_error(error)
