"""YAML text to plain values, for files that users may have edited or damaged: every defect is one `UserError` line."""
from __future__ import annotations

import math
from typing import Any

import yaml

from ltcore.errors import UserError

MAX_BYTES, MAX_DEPTH, MAX_VALUES = 8_000_000, 40, 1_000_000   # the largest file of the 26 has 240 kB, depth 8, 40,000 values


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The safe loader, and a key given twice is an error rather than a silent loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice in one mapping", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def parse(text: str, name: str) -> dict[str, Any]:
    """YAML text to plain values; anything but a mapping of a sane size and depth is a `UserError`."""
    if len(text) > MAX_BYTES:
        raise UserError(f"{name}: {len(text)} characters, more than the {MAX_BYTES} a paper's file may have")
    try:
        _check_depth(text)
        data = yaml.load(text, _Loader)
        size = _expanded_size(data, {})
    except yaml.MarkedYAMLError as e:
        where = f", line {e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UserError(one_line(f"{name}{where}: {e.problem or e.context or 'not YAML'}")) from e
    except yaml.reader.ReaderError as e:
        raise UserError(one_line(f"{name}, position {e.position}: {e.reason}")) from e
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as e:
        # the constructors of tagged and odd scalars (!!int '', 99-99-99, 5000-digit numbers) raise all of these
        raise UserError(one_line(f"{name}: not readable as YAML ({type(e).__name__}: {e})")) from e
    if size > MAX_VALUES:
        raise UserError(f"{name}: its aliases expand to more than {MAX_VALUES} values")
    if not isinstance(data, dict):
        raise UserError(f"{name}: a paper's file is a mapping with key, title, protocols, published, claims …")
    return data


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the C loader, which recurses and would overrun its stack."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH}", problem_mark=event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _expanded_size(value: Any, known: dict[int, float]) -> float:
    """Number of values with every alias written out, in time linear in the text; infinite for a value that holds itself."""
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded_size(v, known) for v in items)
    return known[id(value)]


def one_line(message: str) -> str:
    """The message on one line of at most 300 characters."""
    return " ".join(message.split())[:300]
