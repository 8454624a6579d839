from pathlib import Path

import pytest

import keywarp.training
from keywarp.training import RecipeError, read_recipe

STREET = Path(keywarp.training.__file__).parent / "recipes" / "street.toml"


def test_the_shipped_recipe_is_valid() -> None:
    recipe = read_recipe(STREET)
    assert recipe.name == "street"
    assert [c.name for c in recipe.classes] == ["background", "person", "bicycle", "vehicle"]
    held_out = {clip.name: clip.holdout for clip in recipe.clips}
    assert held_out == {"bikes": 0, "vtest": 0.2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed = 0", "sead = 0"), "sead"),
        (("steps = ", "steps = -"), "greater than or equal"),
        (("[network]", "[network"), "not TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "r.toml").write_text(STREET.read_text().replace(*change))
    with pytest.raises(RecipeError, match=message):
        read_recipe(tmp_path / "r.toml")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't read the recipe"):
        read_recipe(tmp_path / "none.toml")
