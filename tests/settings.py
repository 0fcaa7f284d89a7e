"""What tests ask of the settings of a kind of configuration."""

from typing import get_args, get_type_hints

from common.training.settings import RunConfig, settings_of, without_effect


def used_by(kind: type[RunConfig], *also: str) -> dict[str, tuple[str, ...]]:
    """The methods that a setting counts for, of each setting that some method declares.

    Args:
        kind: of the configuration.
        also: further settings that do not count for all methods.
    """
    hint = get_type_hints(kind)["method"]
    names = [*get_args(hint), *(name for part in get_args(hint) for name in get_args(part))]
    table = {method: some for method, some in kind.method_settings.items() if method in names}
    declared = [name for some in table.values() for name in settings_of(some)]
    methods = dict.fromkeys((*table, *(name for name in names if isinstance(name, str))))
    return {
        name: tuple(method for method in methods if name not in without_effect(kind, method))
        for name in dict.fromkeys((*declared, *also))
    }
