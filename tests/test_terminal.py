import pytest

from src import terminal


def interrupted(folder: str) -> None:
    """Is stopped at once.

    Example: interrupted data
    """
    raise KeyboardInterrupt(folder)


def test_ctrl_c_ends_with_a_word_on_how_to_go_on_and_the_exit_code_of_shells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["interrupted", "data"])
    with pytest.raises(SystemExit) as left:
        terminal.run(interrupted)
    assert left.value.code == 130
    assert "stopped. Give the same command to go on." in capsys.readouterr().err


def test_help_shows_the_arguments_and_the_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["interrupted", "--help"])
    with pytest.raises(SystemExit) as left:
        terminal.run(interrupted)
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "FOLDER" in told.upper()
    assert "Example: interrupted data" in told


def test_wrong_use_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["interrupted"])
    with pytest.raises(SystemExit) as left:
        terminal.run(interrupted)
    assert left.value.code == 2
    assert "Missing argument" in capsys.readouterr().err
