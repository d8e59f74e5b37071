"""Training recipes fixed before the runs that are judged: every setting with its reason, and which checkpoints ship.

fixtures/recipes.toml holds them by name; `claims train --recipe NAME` trains by one. A recipe is a draft while a pilot
looks for it, and then only its pilot seeds can be trained: no run of a draft is ever judged. Once it is final, its
judged seeds can be trained and its settings change no more.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from circuit_claims.places import FIXTURES
from circuit_claims.toy.checkpoints import RunError
from circuit_claims.toy.training import Recipe

SETTINGS = ("steps", "batch", "n_ctx", "lr", "weight_decay", "betas", "precision", "keep_every")
RecipeText = Annotated[str, Field(min_length=1)]
Seeds = Annotated[tuple[int, ...], Field(min_length=1)]


class Landmark(BaseModel):
    """The first checkpoint from which on a quantity has reached `at`, for itself and the next two.

    fall: share of the held-out loss' fall from the first checkpoint to the lowest. previous: previous-token score of
    the `rank`-th head of layer 0. prefix: prefix-matching score of the `rank`-th head of the other layers. first, last:
    the ends of the run. after: halfway in steps between the landmark before it that comes last and the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    quantity: Literal["first", "fall", "previous", "prefix", "after", "last"]
    at: float = Field(default=0.0, ge=0.0, le=1.0)
    rank: int = Field(default=1, ge=1)


class RecipeSettings(BaseModel):
    """What `training.Recipe` needs but layers and seed, by the same names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch: int
    n_ctx: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    precision: Literal["fp32", "bf16"]
    keep_every: int


class FixedRecipe(BaseModel):
    """One recipe of fixtures/recipes.toml; `judged` and `pilot` are seeds by number of layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: RecipeText
    title: RecipeText
    status: Literal["draft", "final"]
    mixture: RecipeText
    tokenizer: RecipeText
    settings: RecipeSettings
    reasons: dict[str, RecipeText]
    differs: tuple[RecipeText, ...]
    pilot_rule: RecipeText
    pilot_showed: tuple[RecipeText, ...]
    judged: dict[int, Seeds]
    pilot: dict[int, Seeds]
    ships: Annotated[tuple[Landmark, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> FixedRecipe:
        if wrong := set(SETTINGS) ^ set(self.reasons):
            raise ValueError(f"reasons: expected one for each setting, found missing or unknown {sorted(wrong)}")
        both = {(layers, seed) for layers, seeds in self.judged.items() for seed in seeds} & {
            (layers, seed) for layers, seeds in self.pilot.items() for seed in seeds
        }
        if both:
            raise ValueError(f"seeds: expected pilot seeds that are never judged, found in both {sorted(both)}")
        return self

    def for_run(self, layers: int, seed: int) -> Recipe:
        """The recipe of one run. Raises `RunError` for a seed that it does not name, or may not train yet.

        >>> load_recipes()["small-batch"].for_run(2, 901).batch
        8
        """
        allowed = self.pilot.get(layers, ()) + (self.judged.get(layers, ()) if self.status == "final" else ())
        if seed not in allowed:
            why = "is a draft: until its pilot is done only pilot seeds are trained" if self.status == "draft" else ""
            told = ", ".join(map(str, allowed)) or "none"
            raise RunError(
                f"recipe {self.name}: seed {seed} with {layers} layers\n  expected  one of {told}\n"
                f"  found     {seed}{'; it ' + why if why else ''}\n"
                f"  Type: --recipe {self.name} --layers {layers} --seed {allowed[0] if allowed else 'SEED'}"
            )
        return Recipe(n_layers=layers, seed=seed, **self.settings.model_dump())

    @property
    def mixture_path(self) -> Path:
        """The file with the text's sources and shares."""
        return FIXTURES / self.mixture

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer of every run by this recipe: trained anew it would be another wherever a library changed."""
        return FIXTURES / self.tokenizer


@cache
def load_recipes(path: Path = FIXTURES / "recipes.toml") -> dict[str, FixedRecipe]:
    """The recipes by name. Raises `RunError` for a file that does not say what it must."""
    try:
        rows = [FixedRecipe.model_validate(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["recipe"]]
    except (OSError, KeyError, ValidationError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{path} cannot be used\n  expected  tables [[recipe]]\n  found     {error}") from None
    named = {row.name: row for row in rows}
    if len(named) < len(rows):
        raise RunError(f"{path}: two recipes have one name\n  expected  every recipe to have its own")
    return named


def known_recipe(name: str) -> FixedRecipe:
    """The recipe called `name`. Raises `RunError` where there is none."""
    found = load_recipes().get(name)
    if found is None:
        raise RunError(f"recipe {name}\n  expected  one of {', '.join(load_recipes())}\n  found     no such recipe")
    return found


def fixed_recipe(name: str, typed: Recipe, mixture: Path | None = None) -> FixedRecipe:
    """The recipe called `name`, where nothing but layers and seed was `typed` beside it. Raises `RunError` else."""
    found = known_recipe(name)
    if mixture is not None or typed != Recipe(n_layers=typed.n_layers, seed=typed.seed):
        raise RunError(
            f"recipe {name}\n  expected  --layers and --seed beside it\n  found     other settings too\n"
            f"  Type: --recipe {name} --layers {typed.n_layers} --seed {typed.seed}"
        )
    return found
