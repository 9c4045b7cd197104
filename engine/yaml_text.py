"""How YAML is read wherever settings are written in it: by the safe loader, which tells the place of what is wrong."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from engine import schema
from engine.errors import shown

if TYPE_CHECKING:
    import yaml

TAG = "tag:yaml.org,2002:"
NOUNS = {"int": "an integer", "float": "a number", "bool": "true or false", "timestamp": "a date"}


@functools.cache
def loader() -> type[yaml.SafeLoader]:
    """Return the class to load with, for which a whole number may have any number of digits."""
    import yaml  # only when something may be YAML

    class Loader(yaml.SafeLoader):
        def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
            return schema.whole(node.value) if len(node.value) > schema.DIGITS else super().construct_yaml_int(node)

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (ArithmeticError, AttributeError, LookupError, ValueError) as error:  # of yaml itself, about a value
                noun = NOUNS.get(node.tag.removeprefix(TAG), node.tag)
                message = f"'{shown(node.value)}' cannot be read as {noun}"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from error

    Loader.add_constructor(f"{TAG}int", Loader.construct_yaml_int)
    return Loader
