"""Prometheus' rules for names, units, labels and histograms, checked on the text of a scrape.

The rules are those of https://prometheus.io/docs/practices/naming/ and of promtool's linter, which is
not installed everywhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

LABELS = {"browser", "state", "reason", "clean", "kind", "version", "container", "hook"}
"""Each has a few values that do not depend on what users run; ``container`` those of ``--docker``."""
NO_BASE_UNITS = re.compile(
    r"_(ms|us|ns|millis\w*|micros\w*|nanos\w*|minutes?|hours?|days?|kb|kib|mb|mib|gb|gib|kilo\w*|mega\w*"
    r"|percent|celcius|fahrenheit)(_|$)"
)
TYPES = re.compile(r"_(counter|gauge|histogram|summary|untyped)(_|$)")


def breaches(text: str) -> list[str]:
    """What breaks the rules; [] if nothing does."""
    found = []
    names = Counter(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    found += [f"{name}: more than one family" for name, number in names.items() if number > 1]
    for family in text_string_to_metric_families(text):
        found += [f"{family.name}: {problem}" for problem in _of_family(family)]
    return found


def _of_family(family: Metric) -> Iterator[str]:
    name = family.name
    rules = {
        "not a lower-case name with our prefix": re.fullmatch(r"browserkeeper(_[a-z][a-z0-9]*)+", name),
        "no help text": family.documentation.endswith((".", "?")),
        f"type {family.type}": family.type in ("counter", "gauge", "histogram"),
        "no base unit": not NO_BASE_UNITS.search(name),
        "its unit is not the last word": not re.search(r"(seconds|bytes)_", name),
        "the type is in its name": not TYPES.search(name),
        "a gauge with the name of a counter": not re.search(r"_(total|count|sum|bucket)$", name),
    }
    yield from (problem for problem, holds in rules.items() if not holds)
    series = Counter((sample.name, frozenset(sample.labels.items())) for sample in family.samples)
    yield from (f"{one} is there {number} times" for one, number in series.items() if number > 1)
    for sample in family.samples:
        yield from _of_labels(sample.labels)
        if family.type == "counter" and not (sample.name.endswith("_total") and sample.value >= 0):
            yield f"{sample.name}: a counter without _total, or below 0"
    if family.type == "histogram":
        yield from _of_histogram(family)


def _of_labels(labels: Mapping[str, str]) -> Iterator[str]:
    if strange := set(labels) - LABELS - {"le"}:
        yield f"unknown labels {sorted(strange)}"
    for name, value in labels.items():
        if name not in ("le", "version") and re.fullmatch(r"\d+|[0-9a-f]{12,}|.{64,}", value):
            yield f"a label with a value without bound: {name}={value}"


def _of_histogram(family: Metric) -> Iterator[str]:
    by_series: dict[frozenset[tuple[str, str]], dict[str, list[tuple[str, float]]]] = {}
    for sample in family.samples:
        labels = frozenset((key, value) for key, value in sample.labels.items() if key != "le")
        part = sample.name.removeprefix(family.name)
        by_series.setdefault(labels, {}).setdefault(part, []).append(
            (sample.labels.get("le", ""), sample.value)
        )
    for parts in by_series.values():
        buckets = parts.get("_bucket", [])
        bounds, numbers = [float(bound) for bound, _ in buckets], [number for _, number in buckets]
        if bounds != sorted(set(bounds)) or not bounds or bounds[-1] != float("inf"):
            yield f"buckets {bounds}"
        if numbers != sorted(numbers):
            yield "buckets that do not add up"
        if [number for _, number in parts.get("_count", [])] != numbers[-1:] or "_sum" not in parts:
            yield "no count, or no sum"


__all__ = ["LABELS", "breaches"]
