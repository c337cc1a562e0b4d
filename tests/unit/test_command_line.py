"""The list of commands, and each one's own help."""

from pathlib import Path

import pytest

import emflow.cli
from emflow.cli import COMMANDS, main


def test_every_command_is_in_one_group_and_has_a_module() -> None:
    names = [name for group in COMMANDS.values() for name in group]
    assert len(set(names)) == len(names)
    modules = {path.stem for path in Path(emflow.cli.__file__).parent.glob("*.py")}
    assert set(names) <= modules


@pytest.mark.parametrize("tokens", [[], ["--help"]])
def test_the_list_says_what_each_is_for(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(tokens)
    said = capsys.readouterr().out
    for title, commands in COMMANDS.items():
        assert title in said
        for name, line in commands.items():
            assert name.replace("_", "-") in said
            assert line.split()[0] in said
    # In the order of work, not of the alphabet.
    assert said.index("correct-motion") < said.index("build-tiles") < said.index("export-relion")


def test_a_command_s_help_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    main(["clean", "--help"])
    said = capsys.readouterr().out
    assert "--stage" in said
    assert COMMANDS["A session"]["clean"] not in said


@pytest.mark.parametrize("command", ["train-picker", "train-segmenter"])
def test_widths_are_given_one_after_the_other(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The network's depth is free, so that the option must take as many numbers as there are."""
    with pytest.raises(SystemExit):
        main([command, "--output", "x", "--channels", "8", "16", "none"])
    # Refused for what it is, and not as a number too many.
    assert "Invalid value for --channels" in capsys.readouterr().err
