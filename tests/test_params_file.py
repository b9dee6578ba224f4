import pytest

from src.config import load_params
from src.params_file import with_values
from tests.test_config import ROOT

TEXT = """# first
train:  # the training
  rate: 2e-3   # of learning
  names: [a, b]  # two
  words:
    - c
    - d
  none: null
  empty:
  model: {depth: 4, name: dice}
"""


def test_a_value_is_changed_and_all_else_stays() -> None:
    changes = {"train.rate": 0.0015, "train.model.depth": 2, "train.model.name": "focal"}
    assert with_values(TEXT, changes) == TEXT.replace("2e-3", "0.0015").replace(
        "{depth: 4, name: dice}", "{depth: 2, name: focal}"
    )


def test_lists_nothing_and_truth_are_written() -> None:
    changes = {
        "train.names": ["unetpp"], "train.words": ["else"], "train.none": True, "train.empty": None,
    }  # fmt: skip
    expected = TEXT.replace("[a, b]", "[unetpp]").replace(
        "words:\n    - c\n    - d", "words: [else]"
    )
    expected = expected.replace("none: null", "none: true").replace("empty:", "empty: null")
    assert with_values(TEXT, changes) == expected


def test_a_word_that_yaml_would_misread_is_quoted() -> None:
    assert 'name: "null"' in with_values(TEXT, {"train.model.name": "null"})
    assert 'name: "2e3"' in with_values(TEXT, {"train.model.name": "2e3"})


def test_a_value_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"params.yaml has no train\.model\.deep"):
        with_values(TEXT, {"train.model.deep": 2})


def test_the_file_of_the_repository_keeps_its_comments(tmp_path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(
        with_values(text, {"train.learning_rate": 1e-05, "architectures": ["unetpp"]}),
        encoding="utf-8",
    )
    params = load_params(path)
    assert params.train.learning_rate == 1e-05
    assert params.architectures == ("unetpp",)
    lines = zip(text.splitlines(), path.read_text(encoding="utf-8").splitlines(), strict=True)
    assert [new for old, new in lines if new != old] == [
        "architectures: [unetpp]  # each is trained, all are compared", "  learning_rate: 1e-05",
    ]  # fmt: skip
