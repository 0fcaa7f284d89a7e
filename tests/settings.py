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
    names = kind.method_settings.keys() if hint is str else {*get_args(hint)}
    assert names <= kind.method_settings.keys()
    methods = [method for method in kind.method_settings if method in names]
    declared = [name for method in methods for name in settings_of(kind.method_settings[method])]
    return {
        name: tuple(method for method in methods if name not in without_effect(kind, method))
        for name in dict.fromkeys((*declared, *also))
    }
