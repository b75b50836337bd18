"""Where settings come from: a YAML file and the environment, turned into records with every fault noted.

`config.py` says which settings there are; this module knows nothing about them but their types.
"""

from __future__ import annotations

import difflib
import os
import reprlib
import stat
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

ENV_PREFIX = "RQSUP_"
#: Variables with this prefix that are no settings: the command line's file, and the test suite's server.
NOT_SETTINGS = frozenset({"RQSUP_CONFIG", "RQSUP_TEST_REDIS"})
#: Keys whose value may hold a password, so that no message repeats it.
SECRET_KEYS = frozenset({"redis.url"})

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class FromEnvironment(str):
    """A value whose type is not known yet: `4` may be a number, a name, or a list of one."""

    __slots__ = ("variable",)
    variable: str


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice: YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, after a look for doubles."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, faults: list[str]) -> dict[Any, Any]:
    """The mapping in a file; empty when it has faults, which are noted."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = yaml.load(file, Loader=_UniqueKeyLoader)  # noqa: S506 - derived from SafeLoader
    except OSError as fault:
        faults.append(
            f"cannot be read ({fault.strerror or fault}): name another file with -c, or let this user read it"
        )
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        faults.append(f"is no YAML: {' '.join(str(fault).split())}")
        return {}
    except RecursionError:
        faults.append("is no YAML that rqsup reads: nested too deeply")
        return {}
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        faults.append(f"is writable by everybody, who could run code through `app`: chmod o-w {path}")
    if data is not None and not isinstance(data, dict):
        faults.append(f"must be a mapping of sections and keys, not {_shown(data)}")
        return {}
    return data or {}


def override(data: dict[Any, Any], environ: Mapping[str, str], faults: list[str]) -> None:
    """Put the values of `RQSUP_<KEY>` and `RQSUP_<SECTION>__<KEY>` over those of the file."""
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable in NOT_SETTINGS:
            continue
        *sections, key = variable.removeprefix(ENV_PREFIX).lower().split("__")
        value = FromEnvironment(text)
        value.variable = variable
        if len(sections) > 1:
            faults.append(f"{variable}: names no setting; write RQSUP_<SECTION>__<KEY>")
            continue
        target = data
        for section in sections:
            if data.get(section) is None:
                data[section] = {}
            target = data[section]
        if isinstance(target, dict):  # a section that is no mapping is noted when it is built
            target[key] = value


def build(kind: type[Any], data: Any, prefix: str, faults: list[str]) -> Any:
    """A record of this type from plain data; a value with a fault keeps its default, and the fault is noted."""
    if data is None:  # a section whose keys are all commented out
        return kind()
    if not isinstance(data, dict):
        faults.append(
            f"{prefix.rstrip('.')}{_origin(data)}: must be a section with keys, not one value"
        )  # which may be a secret
        return kind()
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if key not in hints:
            faults.append(f"{name}{_origin(value)}: unknown key{_suggestion(key, hints)}")
        elif isinstance(hints[key], type) and issubclass(hints[key], msgspec.Struct):
            values[key] = build(hints[key], value, f"{name}.", faults)
        else:
            try:
                values[key] = _convert(hints[key], value)
            except msgspec.ValidationError:
                found = f"a {type(value).__name__} (not shown)" if name in SECRET_KEYS else _shown(value)
                faults.append(f"{name}{_origin(value)}: found {found}; allowed is {describe(hints[key])}")
    return kind(**values)


def describe(hint: Any) -> str:
    """What a setting of this type may be, in words for operators."""
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return _describe_bounds(describe(inner), next(note for note in notes if isinstance(note, msgspec.Meta)))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) in {Union, UnionType}:
        return " or ".join(describe(part).removeprefix("one of ") for part in get_args(hint))
    if get_origin(hint) is list:
        return f"a list; each entry: {describe(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "a mapping of text to text"
    return _KINDS[hint]


def _describe_bounds(kind: str, meta: msgspec.Meta) -> str:
    if meta.description:
        return meta.description
    if meta.min_length is not None:
        return kind.replace("a list", f"a list of at least {meta.min_length}", 1)
    if meta.gt is not None:
        return f"{kind} more than {meta.gt}, up to {meta.le}"
    return f"{kind} from {meta.ge} to {meta.le}" if meta.le is not None else f"{kind}, {meta.ge} or more"


def _convert(hint: Any, value: Any) -> Any:
    if not isinstance(value, FromEnvironment):
        return msgspec.convert(value, hint, strict=True)
    text = value.strip()
    kind = get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint)
    if kind in {list, dict}:
        return msgspec.convert(_parse_collection(text, kind), hint, strict=False)
    if hint is bool:
        return msgspec.convert(_BOOLEANS.get(text.lower(), text), bool)
    return msgspec.convert(text, hint, strict=False)


def _parse_collection(text: str, kind: type) -> Any:
    """`a,b` or a YAML list or mapping, as environment variables hold it."""
    if text.startswith(("[", "{")):
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError):
            return text  # refused with its text by the caller
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return parts if parts or kind is list else {}


def _suggestion(key: object, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _origin(value: Any) -> str:
    return f" (from {value.variable})" if isinstance(value, FromEnvironment) else ""


def _shown(value: Any) -> str:
    return _short.repr(str(value) if isinstance(value, FromEnvironment) else value)


#: Bounded, because aliases can make a small file describe a huge value.
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring = 2, 60
