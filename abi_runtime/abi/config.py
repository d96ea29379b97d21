"""The configuration: where each value came from, and whether it makes sense.

Flag > `ABI_<SECTION>_<NAME>` > drop-ins `abid.d/*.toml` beside the file, by name > file >
default. The table of options is `abi.options`. Whatever is unknown, of the wrong type or
out of bounds raises `ConfigError` with the key, the file and line, and the nearest right
one: a misspelled option must never pass for a default.

`python -m abi.config` prints the commented file that `configs/abid.toml` is.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from abi import paths
from abi.errors import ConfigError
from abi.options import BY_KEY, OPTIONS, SECTIONS, Option, Value, as_toml, spelled
from abi.toml_lines import place_of

SYSTEM_FILE = "/etc/abi/abid.toml"
_KINDS = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "text": "a text",
    "table": "a table of name = number",
    "texts": "a list of texts",
}
# What an environment variable may say, since a shell knows no type.
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_RESOURCE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
Report = Callable[[ConfigError], None]
"""What becomes of a mistake: it is raised, or noted so that the next one is found too."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and its origin: "default", "flag", "environment ABI_…" or "FILE:LINE"."""

    value: Value
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, by key. `file` is the main file, "" if there is none."""

    settings: Mapping[str, Setting]
    file: str = ""

    def integer(self, key: str) -> int:
        """The value of an integer option. Raises KeyError and TypeError for a wrong key."""
        value = self.settings[key].value
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{key} is no integer option")
        return value

    def number(self, key: str) -> float:
        """The value of an integer or number option."""
        value = self.settings[key].value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{key} is no number option")
        return float(value)

    def text(self, key: str) -> str:
        """The value of a text option."""
        value = self.settings[key].value
        if not isinstance(value, str):
            raise TypeError(f"{key} is no text option")
        return value

    def boolean(self, key: str) -> bool:
        """The value of a boolean option."""
        value = self.settings[key].value
        if not isinstance(value, bool):
            raise TypeError(f"{key} is no boolean option")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The values of an option that is a list of texts."""
        value = self.settings[key].value
        if not isinstance(value, tuple):
            raise TypeError(f"{key} is no option that is a list")
        return value

    def table(self, key: str) -> dict[str, float]:
        """A copy of the value of a table option."""
        value = self.settings[key].value
        if not isinstance(value, Mapping):
            raise TypeError(f"{key} is no table option")
        return dict(value)

    def shown(self) -> dict[str, dict[str, object]]:
        """`{key: {"value", "origin"}}`, in the order of the table; fit for JSON."""
        return {key: {"value": setting.value, "origin": setting.origin} for key, setting in self.settings.items()}

    def changes(self, new: Config) -> list[str]:
        """The keys whose value is another one in `new`, in the order of the table."""
        return [key for key, old in self.settings.items() if old.value != new.settings[key].value]

    def reloaded(self, new: Config) -> Reloaded:
        """`new` taken on by who has been running with this one."""
        differ = self.changes(new)
        restart = [key for key in differ if not BY_KEY[key].reloadable]
        settings = {**new.settings, **{key: self.settings[key] for key in restart}}
        return Reloaded(Config(settings, new.file), [key for key in differ if key not in restart], restart)


class Reloaded(NamedTuple):
    """What a reload brought: the configuration that is now in force, the keys that changed in it, and those whose new
    values wait for a restart (their old ones stay, so that nobody is shown what is not so)."""

    config: Config
    changed: list[str]
    restart: list[str]


def load(
    file: str | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    system: bool = False,
) -> Config:
    """Read and check everything. `file` must exist; the default one need not.

    `flags` is by key, values as in TOML or as text. Raises `ConfigError` for the first
    mistake, and for a file that cannot be read or is no TOML.
    """

    def raised(mistake: ConfigError) -> None:
        raise mistake

    return _load(file, flags or {}, os.environ if environ is None else environ, system, raised)


def load_all(
    file: str | None = None, environ: Mapping[str, str] | None = None, *, system: bool = False
) -> tuple[Config, list[ConfigError]]:
    """As `load`, with every mistake that there is; what is wrong is left out of the configuration."""
    mistakes: list[ConfigError] = []
    found = _load(file, {}, os.environ if environ is None else environ, system, mistakes.append)
    return found, mistakes


def _load(
    file: str | None, flags: Mapping[str, object], environ: Mapping[str, str], system: bool, report: Report
) -> Config:
    settings = {option.key: Setting(option.default, "default") for option in OPTIONS}
    main = file if file is not None else default_file(environ, system=system)
    read: list[str] = []
    if main and (file is not None or os.path.exists(main)):
        read.append(main)
    for name in read + (_drop_ins(main, report) if main else []):
        settings.update(_from_file(name, report))
    settings.update(_from_environment(environ, report))
    settings.update(_from_flags(flags, report))
    return Config(settings, os.path.abspath(read[0]) if read else "")


def default_file(environ: Mapping[str, str] | None = None, *, system: bool = False) -> str:
    """The main file where no `-c` names one; "" if there is no place for it."""
    environ = os.environ if environ is None else environ
    if system:
        return SYSTEM_FILE
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        home = paths.home(environ)
        if home is None:
            return ""
        base = os.path.join(home, ".config")
    return os.path.join(base, "abi", "abid.toml")


def checked(option: Option, value: object, where: str) -> Value:
    """`value` if it fits `option`, numbers in its type; else ConfigError that names `where`."""
    found: Value
    match option.kind:
        case "integer" if isinstance(value, int) and not isinstance(value, bool):
            found = value
        case "number" if isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value)
        case "boolean" if isinstance(value, bool):
            return value
        case "text" if isinstance(value, str):
            found = value
        case "texts" if isinstance(value, list | tuple):
            return _checked_texts(option, cast(Sequence[object], value), where)
        case "table" if isinstance(value, Mapping):
            return _checked_table(option, cast(Mapping[object, object], value), where)
        case _:
            raise ConfigError(
                f"{where}: {option.key} must be {_KINDS[option.kind]}, not {value!r}",
                hint=f"the default is {spelled(option.default)}",
            )
    if isinstance(found, str):
        _check_choice(option, found, where)
        if found != option.default:
            _check_form(option, found, where)
    else:
        _check_bounds(option, option.key, found, where)
    return found


def _checked_table(option: Option, value: Mapping[object, object], where: str) -> Value:
    table: dict[str, float] = {}
    for name, amount in value.items():
        key = f"{option.key}.{name}"
        if not isinstance(name, str) or not _RESOURCE_NAME.fullmatch(name):
            raise ConfigError(f"{where}: {key} is no name: letters, digits, _ . - only")
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise ConfigError(f"{where}: {key} must be a number, not {amount!r}")
        _check_bounds(option, key, amount, where)
        table[name] = float(amount)
    return table


def _checked_texts(option: Option, values: Sequence[object], where: str) -> tuple[str, ...]:
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(f"{where}: each of {option.key} must be a text, not {value!r}")
        _check_form(option, value, where)
    return tuple(cast(Sequence[str], values))


def _check_form(option: Option, value: str, where: str) -> None:
    wrong = option.complaint(value) if option.complaint is not None else ""
    if wrong:
        raise ConfigError(f"{where}: {option.key} cannot be {value!r}: {wrong}", hint=option.sentence)


def _check_choice(option: Option, value: str, where: str) -> None:
    if option.choices and value not in option.choices:
        raise ConfigError(
            f"{where}: {option.key} cannot be {value!r}",
            hint=_nearest(value, option.choices) or f"one of {', '.join(option.choices)}",
        )


def _check_bounds(option: Option, key: str, value: float, where: str) -> None:
    low, high = option.minimum, option.maximum
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {key} must be a finite number")
    if low is not None and value < low:
        raise ConfigError(f"{where}: {key} is {value}, the least is {low:.12g}")
    if high is not None and value > high:
        raise ConfigError(f"{where}: {key} is {value}, the most is {high:.12g}")


def _drop_ins(main: str, report: Report) -> list[str]:
    directory = os.path.join(os.path.dirname(os.path.abspath(main)), "abid.d")
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as problem:
        report(ConfigError(f"cannot read {directory}: {problem.strerror}"))
        return []
    return [os.path.join(directory, name) for name in names if name.endswith(".toml") and not name.startswith(".")]


def _from_file(name: str, report: Report) -> dict[str, Setting]:
    try:
        with open(name, "rb") as file:
            text = file.read().decode()
        tables = tomllib.loads(text)
    except OSError as problem:
        report(ConfigError(f"cannot read {name}: {problem.strerror}"))
        return {}
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        report(ConfigError(f"{name} is no TOML: {problem}"))
        return {}
    found: dict[str, Setting] = {}
    for section, table in tables.items():
        if section not in SECTIONS:
            report(_unknown("section", section, SECTIONS, place_of(name, text, section)))
            continue
        if not isinstance(table, dict):
            report(ConfigError(f"{place_of(name, text, section)}: {section} must be a table"))
            continue
        for key, value in cast(dict[str, object], table).items():
            place = place_of(name, text, section, key)
            option = BY_KEY.get(f"{section}.{key}")
            if option is None:
                report(_unknown("option", f"{section}.{key}", BY_KEY, place))
            else:
                _take(found, option, value, place, report)
    return found


def _take(found: dict[str, Setting], option: Option, value: object, where: str, report: Report) -> None:
    """Check a value and note it among those that were `found`. Of a table or a list each entry is checked, and may be
    wrong, by itself."""
    parts: list[object] = [value]
    if option.kind == "table" and isinstance(value, Mapping) and value:
        parts = [{name: amount} for name, amount in cast(Mapping[object, object], value).items()]
    elif option.kind == "texts" and isinstance(value, list) and value:
        parts = [[text] for text in cast(list[object], value)]
    right = True
    for part in parts:
        try:
            checked(option, part, where)
        except ConfigError as mistake:
            right = False
            report(mistake)
    if right:
        found[option.key] = Setting(checked(option, value, where), where)


def _from_environment(environ: Mapping[str, str], report: Report) -> dict[str, Setting]:
    """Variables that start like a section but name no option are mistakes, others not ours."""
    variables = {option.variable: option for option in OPTIONS}
    prefixes = tuple(f"ABI_{section.upper()}_" for section in SECTIONS)
    found: dict[str, Setting] = {}
    for name, text in environ.items():
        if not name.startswith(prefixes):
            continue
        option = variables.get(name)
        if option is None:
            report(_unknown("variable", name, variables, "environment"))
        else:
            _take(found, option, _parsed(option, text), f"environment {name}", report)
    return found


def _from_flags(flags: Mapping[str, object], report: Report) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, value in flags.items():
        option = BY_KEY.get(key)
        if option is None:
            report(_unknown("option", key, BY_KEY, "flag"))
        else:
            _take(found, option, _parsed(option, value) if isinstance(value, str) else value, "flag", report)
    return found


def _parsed(option: Option, text: str) -> object:
    """The value that a text stands for; the text itself where it stands for none."""
    try:
        match option.kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                return _TRUTHS.get(text.strip().lower(), text)
            case "texts":
                return [part.strip() for part in text.split(",") if part.strip()]
            case "table":
                pairs = (part.partition("=") for part in text.split(",") if part.strip())
                return {name.strip(): float(amount) for name, _, amount in pairs}
            case "text":
                return text
    except ValueError:
        return text


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> ConfigError:
    return ConfigError(
        f"{where}: there is no {what} {name!r}",
        hint=_nearest(name, known) or "`abi config show` lists them all",
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


if __name__ == "__main__":
    print(as_toml(), end="")
