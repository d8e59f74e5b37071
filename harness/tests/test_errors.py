"""One root of errors: what the package raises on purpose can be caught as one, and told from a bug."""

import importlib
import inspect
import pkgutil

import circuit_claims
import pytest
from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.running import command_line


def own_errors():
    for module in pkgutil.walk_packages(circuit_claims.__path__, "circuit_claims."):
        for name, value in vars(importlib.import_module(module.name)).items():
            mine = inspect.isclass(value) and value.__module__ == module.name and not name.startswith("_")
            if mine and issubclass(value, Exception) and not issubclass(value, Warning):
                yield value


def test_every_error_of_the_package_has_one_root():
    errors = list(own_errors())
    assert len(errors) > 20
    assert [error for error in errors if not issubclass(error, ClaimsError)] == []


def test_a_message_is_shown_as_it_was_written():
    for error in own_errors():
        if error.__init__ in (Exception.__init__, ValueError.__init__, OSError.__init__, RuntimeError.__init__):
            assert str(error("expected 'a'\n  found 'b'")) == "expected 'a'\n  found 'b'"


@pytest.mark.parametrize("error", [InputError("no such thing"), PermissionError(13, "not yours", "file")])
def test_what_a_person_can_mend_is_told_without_a_traceback(monkeypatch, capsys, error):
    monkeypatch.setattr(command_line, "add_commands_of_papers", _raising(error))
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("no such thing") == isinstance(error, InputError)


@pytest.mark.parametrize("bug", [KeyError("rows"), ValueError("shape"), OSError("without a number")])
def test_a_bug_is_not_swallowed(monkeypatch, bug):
    monkeypatch.setattr(command_line, "add_commands_of_papers", _raising(bug))
    with pytest.raises(type(bug)):
        command_line.main()


def _raising(error):
    def raises(app):
        raise error

    return raises
