"""The command line's own part of Lightning's."""

import caopd.training.lightning_cli
from caopd.cli import HELP, main


def test_one_parser_is_made_that_of_the_given_command(monkeypatch, capsys):
    """Making a parser of every setting takes as long as a small validation, and Lightning would make four."""
    made = []

    class Counted(caopd.training.lightning_cli.CaopdCLI):
        def add_arguments_to_parser(self, parser):
            made.append(parser)
            super().add_arguments_to_parser(parser)

    monkeypatch.setattr(caopd.training.lightning_cli, "CaopdCLI", Counted)
    for number, command in enumerate(("fit", "validate", "test", "predict"), 1):
        assert main([command, "--config=no/such/file.yaml"]) == 2
        assert "no/such/file.yaml" in capsys.readouterr().err
        assert len(made) == number


def test_what_help_begins_with_fits_into_80_columns():
    for text in (HELP, *caopd.training.lightning_cli.ABOUT.values()):
        assert max(map(len, text.splitlines())) <= 80
