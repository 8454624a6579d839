import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from keywarp.protocol import faults
from keywarp.protocol.events import Rules


class Size(BaseModel):
    width: int = Field(ge=1)


class Camera(BaseModel):
    name: str
    sizes: list[Size] = []

    @model_validator(mode="after")
    def _is_not_reserved(self) -> "Camera":
        if self.name == "none":
            raise ValueError("this name is reserved")
        return self


def invalid(text: str) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Camera.model_validate_json(text)
    return raised.value


def test_each_fault_is_described_with_the_path_of_its_field() -> None:
    error = invalid('{"sizes": [{"width": 1}, {"width": 0}]}')
    assert faults.describe(error) == ("name: Field required; sizes.1.width: Input should be greater than or equal to 1")


def test_a_fault_of_the_whole_input_has_the_name_of_the_input() -> None:
    error = invalid('{"name": "none"}')
    assert faults.describe(error) == "this name is reserved"
    assert faults.describe(error, whole="camera") == "camera: this name is reserved"


def test_no_more_faults_are_described_than_asked_for() -> None:
    error = invalid('{"sizes": [{"width": 0}]}')
    assert faults.describe(error, limit=1) == "name: Field required"


def test_a_key_with_a_line_break_keeps_the_description_in_one_line() -> None:
    with pytest.raises(ValidationError) as raised:
        Rules.model_validate({"rules": {"a\nb": {}}})
    assert faults.describe(raised.value).startswith(r"rules.'a\nb': a name has 1 to 64 letters")
