"""Holds manifests to the models of the package `kserve`, whose dependencies want an environment of their own.

`PYTHON tests/support/kserve_models.py FILE` prints a line for each fault: a field that the kind does not
have, or a value of another type. Exit status 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import kserve.models
import kubernetes.client.models
import yaml

KINDS = {
    "ClusterServingRuntime": "V1alpha1ClusterServingRuntime",
    "InferenceService": "V1beta1InferenceService",
}
# Kubernetes writes these as text, KServe as text or as numbers.
PLAIN = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "object": object,
    "datetime": str,
}


def faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """What of ``value``, which stands at ``where``, is not as ``kind`` has it."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: {value!r} came, expected a list"
            return
        for number, one in enumerate(value):
            yield from faults(one, match[1], f"{where}[{number}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        if not isinstance(value, dict):
            yield f"{where}: {value!r} came, expected a mapping"
            return
        for key, one in value.items():
            yield from faults(one, match[1], f"{where}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            yield f"{where}: {value!r} came, expected {kind}"
    else:
        yield from _faults_of_model(value, kind, where)


def _faults_of_model(value: Any, kind: str, where: str) -> Iterator[str]:
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind, None)
    if model is None:  # a quantity, or something else that is written as one word
        return
    if not isinstance(value, dict):
        yield f"{where}: {value!r} came, expected {kind}"
        return
    names = {written: name for name, written in model.attribute_map.items()}
    for key, one in value.items():
        if key in names:
            yield from faults(one, model.openapi_types[names[key]], f"{where}.{key}")
        else:
            yield f"{where}.{key}: {kind} has no such field; it has {', '.join(sorted(names))}"


def main() -> int:
    """Check every document of the file."""
    found = []
    with open(sys.argv[1]) as file:  # noqa: PTH123 - any Python runs this
        for document in yaml.safe_load_all(file):
            kind = document["kind"]
            found += list(faults(document, KINDS[kind], kind))
            print(f"{kind}: checked")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
