"""Winners found once a session: sweeps that differ in what is made of the winners do not read the weights again.

Shuffled orders, left-out wraps, another seed and the other rule about the token itself all compare the same logits.
Kept here is what the logits came down to, under the digest of the weights and all that the logits depend on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from circuit_claims.heads.groups import Group
from circuit_claims.heads.ov_circuit import path_logits
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.dataset import SuccessionDataset
from circuit_claims.papers.successor_heads.succession.score import NOBODY, Winners, find_winners

KEPT_READINGS = 64
_Members = tuple[int, ...]


@dataclass(frozen=True)
class _Reading:
    """What the logits of a comparison set depend on, besides its members."""

    digest: str
    norms: bool
    biases: bool
    path: str
    bos: int | None


@dataclass(frozen=True)
class _Found:
    """The winners of each comparison set, by its ids in ascending order, and the heads they are winners for."""

    heads: Int[np.ndarray, "head 2"]
    winners: dict[_Members, tuple[np.ndarray, np.ndarray]]


_KEPT: OrderedDict[_Reading, _Found] = OrderedDict()


def winners_of_paths(
    weights: CircuitWeights, dataset: SuccessionDataset, paths: Sequence[str], bos: int | None = None
) -> list[Winners]:
    """The winners of all heads on each input path; what is not known yet is read in one pass over the layers.

    Equal to `find_winners` of `group_logits`, path by path, with the choices of `weights`. The comparison sets must
    have their inputs as candidates, as those of a dataset do. Raises what `group_logits` raises.
    """
    readings = {path: _reading(weights, path, bos) for path in paths}
    members = {tuple(sorted(group.inputs)): None for group in dataset.groups}
    unknown = [path for path in readings if any(group not in _known(readings[path]) for group in members)]
    missing = [group for group in members if any(group not in _known(readings[path]) for path in unknown)]
    if missing:
        sets = replace(dataset, groups=tuple(Group(group, group) for group in missing))
        for path, found in zip(unknown, read_winners(weights, sets, unknown, bos), strict=True):
            _keep(readings[path], missing, found)
    return [_assembled(_KEPT[readings[path]], dataset) for path in paths]


def read_winners(
    weights: CircuitWeights, dataset: SuccessionDataset, paths: Sequence[str], bos: int | None = None
) -> list[Winners]:
    """The same from the weights, whatever is known already."""
    choices = {"norms": weights.norms, "biases": weights.biases}
    joined = find_winners(path_logits(weights, dataset.groups, paths, bos=bos, **choices), dataset)
    found = []
    for place in range(len(paths)):
        heads, winner, but_self = (
            np.ascontiguousarray(part[place :: len(paths)])
            for part in (joined.heads, joined.winner, joined.winner_but_self)
        )
        heads[:, 1] //= len(paths)
        found.append(Winners(heads, winner, but_self))
    return found


def _reading(weights: CircuitWeights, path: str, bos: int | None) -> _Reading:
    # Only the streamed residual has a token in front.
    first = bos if path == "residual" else None
    return _Reading(weights.tensors.digest, weights.norms, weights.biases, path, first)


def _known(reading: _Reading) -> dict[_Members, tuple[np.ndarray, np.ndarray]]:
    return _KEPT[reading].winners if reading in _KEPT else {}


def _keep(reading: _Reading, groups: Sequence[_Members], found: Winners) -> None:
    kept = _KEPT.setdefault(reading, _Found(found.heads, {}))
    _KEPT.move_to_end(reading)
    ends = np.cumsum([len(group) for group in groups])[:-1]
    parts = zip(*(np.split(part, ends, axis=1) for part in (found.winner, found.winner_but_self)), strict=True)
    kept.winners.update(zip(groups, parts, strict=True))
    while len(_KEPT) > KEPT_READINGS:
        _KEPT.popitem(last=False)


def _assembled(found: _Found, dataset: SuccessionDataset) -> Winners:
    """The winners in the order that the dataset's comparison sets have."""
    parts = [_in_order(*found.winners[tuple(sorted(group.inputs))], group.inputs) for group in dataset.groups]
    plain, others = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return Winners(found.heads, plain, others)


def _in_order(winner: np.ndarray, but_self: np.ndarray, members: _Members) -> tuple[np.ndarray, np.ndarray]:
    """Columns and places of a comparison set from ascending ids to the order of `members`."""
    ascending = np.argsort(members)
    columns = np.argsort(ascending)
    # A place beyond the last stands for nobody, who is counted as place -1.
    places = np.append(ascending, NOBODY).astype(np.int16)
    return places[winner[:, columns]], places[but_self[:, columns]]
