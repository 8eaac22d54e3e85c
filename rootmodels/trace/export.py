"""A torch module as torch's own graph of operations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from rootmodels.trace.building import BATCH
from rootmodels.trace.errors import TraceError, one_line, raised_at


@dataclass(frozen=True, slots=True)
class Exported:
    """Operations in the order they run, the constants among them by node, and what is given back."""

    nodes: list[fx.Node]
    constants: dict[fx.Node, Tensor]
    output: fx.Node


def export(module: nn.Module, image_size: int) -> Exported:
    """The operations of ``module``, which is in eval mode, on images [N, 3, S, S].

    Raises:
        TraceError: if it does not take such images, gives something else than logits [N, classes], or
            torch cannot follow it.
    """
    device = next((part.device for part in module.parameters()), torch.device("cpu"))
    images = torch.zeros(BATCH, 3, image_size, image_size, device=device)
    shown = f"images [{BATCH}, 3, {image_size}, {image_size}]"
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            logits = module(images)
    except Exception as error:
        raise TraceError(
            f"the module does not take {shown}{raised_at(error.__traceback__)}: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != BATCH:
        came = (
            f"a tensor {[*logits.shape]}" if isinstance(logits, Tensor) else type(logits).__name__
        )
        raise TraceError(
            f"the module gives {came} for {shown}, expected logits [{BATCH}, classes]; wrap it in a module "
            "that gives these alone"
        )
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (images,), strict=False)
            if _changes_what_is_used(program.graph):
                program = program.run_decompositions({})
    except Exception as error:
        raise TraceError(
            f"torch.export cannot follow the module{raised_at(error.__traceback__)}: "
            f"{type(error).__name__}: {one_line(error)}; what it does must not depend on values of the image"
        ) from error
    return _exported(program)


def _exported(program: ExportedProgram) -> Exported:
    constants = {}
    by_name = {node.name: node for node in program.graph.nodes}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        node = by_name[spec.arg.name]
        target = spec.target or ""
        found = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(found, Tensor):
            raise TraceError(
                f"the module has a {type(found).__name__} {target!r}, expected tensors"
            )
        constants[node] = found.detach()
        node.meta["parameter"] = target
    outputs = [spec.arg.name for spec in program.graph_signature.output_specs]
    changed = program.graph_signature.buffers_to_mutate.values()
    if changed:
        raise TraceError(
            f"the module changes its buffer {next(iter(changed))!r}, expected that each image is seen alone"
        )
    return Exported(list(program.graph.nodes), constants, by_name[outputs[-1]])


def _changes_what_is_used(graph: fx.Graph) -> bool:
    """Whether an operation in place changes what others take later, by the old name or as a part of it."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    group: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        # Views, and whatever else may lie where its first argument lies.
        first = next(iter(node.all_input_nodes), None)
        shares = node.op == "call_function" and first is not None and _may_alias(node)
        group[node] = group[first] if shares and first is not None else []
        group[node].append(node)
    return any(
        place[user] > place[node]
        for node, changed in _changes(graph)
        for other in group[changed]
        if other is not node and place[other] < place[node]
        for user in other.users
        if user is not node
    )


def _changes(graph: fx.Graph) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Operations in place, and what they change."""
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and node.all_input_nodes:
            yield node, node.all_input_nodes[0]


def _may_alias(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return True
    name = str(schema.name).split("::")[-1]
    shares = any(part.alias_info is not None for part in schema.returns)
    return shares or name in {"reshape", "flatten", "contiguous", "dropout", "chunk", "to"}
