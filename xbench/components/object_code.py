"""Identify objects that were made in a script or a notebook, by the source of their code and by the values
that it uses.

Files identify the code of modules (see `components.code`). A function of a notebook has no file, and a script
is more than its functions. Therefore this module follows what a function refers to: its source, its defaults,
the variables that it closes over, the globals that it reads, and what these refer to in turn. Where it comes
to a module, the module's files stand for the rest. It ends at installed packages, whose versions are known.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbench.components.code import XBENCH, is_installed
from xbench.components.specs import ModelSpec, OptimizerSpec, Spec

# Modules whose objects can change without a file that shows it.
_MAIN_NAMES = ("__main__", "__mp_main__")

# Attributes of a class that its methods and fields imply, or that are bookkeeping of Python.
_IMPLIED = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__match_args__",
        "__module__",
        "__parameters__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

# Methods that `dataclass` generates of the fields, without a source.
_OF_DATACLASS = frozenset(
    f"__{name}__"
    for name in ("init", "repr", "eq", "lt", "le", "gt", "ge", "hash", "setattr", "delattr", "replace")
)

# Of a type that a value consists of: its `repr` says everything.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, range, type(Ellipsis))

# Levels of values within values. Each takes a few calls, of which Python allows a thousand.
_MAX_DEPTH = 100


class NoSource(Exception):
    """The code or the value of an object cannot be known. The message says of which."""


@dataclass(frozen=True)
class ObjectCode:
    """What identifies an object.

    Attributes:
        digest: a hash of the sources and values of the object, in hex.
        places: files and folders of the modules that it uses and that may be edited.
    """

    digest: str
    places: tuple[Path, ...]


def identify(value: Any) -> ObjectCode:
    """Identify an object by its source and by everything that it refers to.

    Raises:
        NoSource: the source of a part of it cannot be found, or the state of a part of it cannot be read.
    """
    walk = _Walk()
    walk.visit(value)
    return ObjectCode(walk.digest.hexdigest(), tuple(sorted(walk.places)))


class _Walk:
    """A walk through an object and what it refers to, which hashes all that it meets.

    Attributes:
        places: see `ObjectCode`.
    """

    def __init__(self, places: set[Path] | None = None, depth: int = 0):
        self.digest = hashlib.sha256()
        self.places: set[Path] = set() if places is None else places
        self._depth = depth
        # Objects that were met, by their IDs, in the order in which they were; kept, so that no ID is reused.
        self._met: dict[int, tuple[int, Any]] = {}

    def visit(self, value: Any) -> None:
        if type(value) in _PLAIN:  # subclasses have methods and attributes of their own
            self._note(type(value).__name__, repr(value))
            return
        if id(value) in self._met:
            self._note("met", str(self._met[id(value)][0]))
            return
        self._met[id(value)] = (len(self._met), value)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NoSource("its values are nested too deeply")
        self._visit_new(value)
        self._depth -= 1

    def _visit_new(self, value: Any) -> None:
        if isinstance(value, types.ModuleType):
            self._visit_module(value)
        elif isinstance(value, types.CodeType):
            self._visit_code(value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, types.MethodType):
            self._visit_all("method", value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            self._visit_all(type(value).__name__, value.__func__)
        elif isinstance(value, property):
            self._visit_all("property", value.fget, value.fset, value.fdel)
        elif isinstance(value, functools.cached_property):
            self._visit_all("cached_property", value.func)
        elif isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            self._note("descriptor", value.__name__)
        elif isinstance(value, tuple | list) and type(value) in (tuple, list):
            self._visit_all(type(value).__name__, *value)
        elif isinstance(value, Mapping) and type(value) in (dict, types.MappingProxyType):
            self._visit_all("dict", *(part for item in value.items() for part in item))
        elif type(value) in (set, frozenset):
            self._note(type(value).__name__, *sorted(map(self._hash_alone, value)))
        elif _is_tensor(value):
            self._visit_tensor(value)
        else:
            if isinstance(value, Spec):
                self._visit_all("spec", *_import_parts(value))
            self._visit_instance(value)

    def _visit_module(self, module: types.ModuleType) -> None:
        if module.__name__ in _MAIN_NAMES:
            raise NoSource("it uses the main module as a value")
        self._note("module", module.__name__)
        self.places.update(_find_places(module.__name__))

    def _visit_class(self, value: type) -> None:
        self._note("class", value.__module__, value.__qualname__)
        if self._is_known_by_name(value):
            return
        self._visit_all("bases", type(value), *value.__bases__)
        made_by_dataclass = "__dataclass_fields__" in vars(value)
        for name, member in vars(value).items():
            if name in _IMPLIED:
                continue
            self._note(name)
            if not (made_by_dataclass and name in _OF_DATACLASS and _was_generated(member)):
                self.visit(member)

    def _visit_function(self, function: types.FunctionType) -> None:
        self._note("function", function.__module__ or "", function.__qualname__)
        if self._is_known_by_name(function):
            return
        if not self._is_of_module(function):
            self.visit(function.__code__)
            names = dict.fromkeys(_list_globals(function.__code__))
            used = {name: function.__globals__[name] for name in names if name in function.__globals__}
            self.visit(used)
        self._visit_all("defaults", function.__defaults__, function.__kwdefaults__, dict(function.__dict__))
        for cell in function.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # the variable has no value yet
                self._note("empty cell")

    def _visit_code(self, code: types.CodeType) -> None:
        """Hash source and byte code: the file may have been edited since, and two lambdas may share a
        line."""
        self._note("code", code.co_name, _find_source(code), code.co_code.hex(), *code.co_names)
        self._visit_constants(code)

    def _visit_constants(self, code: types.CodeType) -> None:
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._note("inner code", constant.co_name, constant.co_code.hex(), *constant.co_names)
                self._visit_constants(constant)
            else:
                self.visit(constant)

    def _visit_tensor(self, tensor: Any) -> None:
        """Hash the content of a tensor: what torch pickles of it differs from time to time."""
        try:
            whole = tensor.detach().cpu().contiguous().reshape(-1)
            content = whole.view(sys.modules["torch"].uint8).numpy().tobytes()
        except Exception as error:  # a tensor without elements in memory, as on the meta device
            raise NoSource(f"a {type(tensor).__name__} has no content that can be read: {error}") from error
        self._note("tensor", str(tensor.dtype), str(tensor.device), str(tensor.requires_grad))
        self._visit_all("content", type(tensor), tuple(tensor.shape), content, dict(vars(tensor)))

    def _visit_instance(self, value: Any) -> None:
        """Hash what would be pickled of an object."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:  # any class may have a method of its own
            raise NoSource(f"a {type(value).__name__} has no state that can be read: {error}") from error
        if isinstance(reduced, str):
            self._note("global", getattr(value, "__module__", None) or "", reduced)
            self._visit_named_module(getattr(value, "__module__", None))
            return
        made_by, arguments, *rest = reduced
        self._visit_all("made by", made_by, arguments)
        for part in rest[:3]:  # the state, the items of a list, and the items of a mapping
            self.visit(list(part) if isinstance(part, Iterator) else part)

    def _is_known_by_name(self, value: Any) -> bool:
        """Check whether a module's files stand for a function or a class, and note the files."""
        name, qualified = value.__module__, value.__qualname__
        if (
            name in _MAIN_NAMES
            or name not in sys.modules
            or not _is_found(sys.modules[name], qualified, value)
        ):
            return False
        self._visit_named_module(name)
        return True

    def _is_of_module(self, function: types.FunctionType) -> bool:
        """Check whether a module's files stand for the source of a function, and note the files."""
        name = function.__module__
        module = sys.modules.get(name or "")
        if name in _MAIN_NAMES or module is None or vars(module) is not function.__globals__:
            return False
        self._visit_named_module(name)
        return True

    def _visit_named_module(self, name: str | None) -> None:
        if name in _MAIN_NAMES:
            raise NoSource("it uses an object that is known only by its name in the main module")
        if name is not None:
            self.places.update(_find_places(name))

    def _visit_all(self, kind: str, *parts: Any) -> None:
        self._note(kind, str(len(parts)))
        for part in parts:
            self.visit(part)

    def _hash_alone(self, value: Any) -> str:
        walk = _Walk(self.places, self._depth)
        walk.visit(value)
        return walk.digest.hexdigest()

    def _note(self, *words: str) -> None:
        for word in words:
            encoded = word.encode(errors="surrogatepass")
            self.digest.update(len(encoded).to_bytes(8, "big") + encoded)


def _import_parts(spec: Spec) -> Iterator[Any]:
    """Yield the callables that a spec may name by strings."""
    yield spec.load_factory()
    if isinstance(spec, ModelSpec):
        yield spec.load_obtain()
    elif isinstance(spec, OptimizerSpec):
        yield spec.load_fill_state()


def _find_source(code: types.CodeType) -> str:
    try:
        return inspect.getsource(code)
    except Exception as error:  # a file that was edited may not be Python any more
        raise NoSource(f"the source of '{code.co_name}' cannot be found") from error


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _was_generated(member: Any) -> bool:
    if not isinstance(member, types.FunctionType):
        return False
    code = getattr(inspect.unwrap(member), "__code__", None)
    return code is not None and code.co_filename == "<string>"


def _list_globals(code: types.CodeType) -> Iterator[str]:
    """Yield the names of the globals that a function reads, and those that the functions within it read."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _list_globals(constant)


def _is_found(module: types.ModuleType, qualified: str, value: Any) -> bool:
    found: Any = module
    for name in qualified.split("."):
        found = getattr(found, name, None)
    return found is value


def _find_places(module: str) -> Iterator[Path]:
    """Yield the folder of a module's package, or the folder that a module without a package is in; nothing
    for installed modules and for xbench, whose own code is identified elsewhere."""
    package = sys.modules.get(module.partition(".")[0])
    if package is None:
        return
    file = getattr(package, "__file__", None)
    found = [file] if file else list(getattr(package, "__path__", ()))
    for path in map(Path, found):
        folder = path.parent if file else path
        is_of_distribution = {"site-packages", "dist-packages"} & set(path.parts)
        if not is_of_distribution and not is_installed(path) and not path.is_relative_to(XBENCH):
            yield folder
