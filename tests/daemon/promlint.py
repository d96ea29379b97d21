"""The rules of the public checker (`promtool check metrics`) for a text of metrics, and those of the format itself.

Written from the format's description (Prometheus, "Exposition formats", text 0.0.4) and the checker's messages, so that
our text is held to them where the checker is not installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABELS = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\\n]|\\[\\"n])*)"')
SAMPLE = re.compile(r"(?P<name>[^\s{]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
BASE_UNITS = ("amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "seconds", "volts")
OTHER_UNITS = (
    *("minutes", "hours", "days", "weeks", "kelvins", "fahrenheit", "rankine", "inches", "yards", "miles", "bits"),
    *("calories", "pounds", "ounces"),
)
PREFIXES = (
    *("pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega", "mibi", "giga"),
    *("gibi", "tera", "tebi", "peta", "pebi"),
)
ABBREVIATIONS = ("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d")


@dataclass
class Family:
    """One metric: what is said of it, and its samples by their labels."""

    name: str
    kind: str = ""
    help: str = ""
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """The metrics of a text. Raises ValueError where the format is not kept."""
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    families: dict[str, Family] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, said = line.split(" ", 3)
            family = families.setdefault(name, Family(name))
            if word not in ("HELP", "TYPE") or family.samples:
                raise ValueError(f"{line!r} comes too late or says nothing")
            setattr(family, {"HELP": "help", "TYPE": "kind"}[word], said)
        else:
            name = _add_sample(families, line)
            if name != last and len(families[name].samples) > 1:
                raise ValueError(f"the samples of {name} do not stand together")
            last = name
    return families


def _add_sample(families: dict[str, Family], line: str) -> str:
    sample = SAMPLE.fullmatch(line)
    if sample is None or not NAME.fullmatch(sample["name"]):
        raise ValueError(f"{line!r} is no sample")
    labels = tuple((found["name"], found["value"]) for found in LABELS.finditer(sample["labels"] or ""))
    if ",".join(f'{name}="{value}"' for name, value in labels) != (sample["labels"] or ""):
        raise ValueError(f"{line!r} has labels that are none")
    samples = families.setdefault(sample["name"], Family(sample["name"])).samples
    if labels in samples:
        raise ValueError(f"{line!r} was said before")
    samples[labels] = float(sample["value"])
    return sample["name"]


def problems(text: str) -> list[str]:
    """What the checker would say of a text."""
    return [f"{family.name} {said}" for family in parse(text).values() for said in _problems(family)]


def _problems(family: Family) -> list[str]:
    said = []
    name, kind = family.name, family.kind
    words = name.lower().split("_")
    wrong_units = {prefix + unit for unit in (*BASE_UNITS, *OTHER_UNITS) for prefix in (*PREFIXES, "")} - {*BASE_UNITS}
    label_names = [label for labels in family.samples for label, _ in labels]
    for is_wrong, what in (
        (not family.help, "no help text"),
        (kind not in TYPES, "no type"),
        (bool(wrong_units & set(words)), "use base unit"),
        (kind == "counter" and words[-1] != "total", 'counter metrics should have "_total" suffix'),
        (kind != "counter" and words[-1] == "total", 'non-counter metrics should not have "_total" suffix'),
        (words[-1] in ("bucket", "count", "sum"), "suffix of a histogram or summary"),
        (bool({"le", "quantile"} & set(label_names)), "label of a histogram or summary"),
        (bool(set(TYPES[:4]) & set(words[1:])), "metric name should not include type"),
        (":" in name, "metric names should not contain ':'"),
        (any(re.search("[a-z][A-Z]", each) for each in (name, *label_names)), "names should be in 'snake_case'"),
        (bool(set(ABBREVIATIONS) & set(words[1:])), "metric names should not contain abbreviated units"),
    ):
        if is_wrong:
            said.append(what)
    return said
