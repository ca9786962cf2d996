import sys

from caopd.training.interrupts import ignored_interrupts_raised


def test_other_ignored_errors_go_where_they_went_and_the_hook_is_put_back(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    before = sys.unraisablehook

    class Fails:
        def __del__(self):
            raise ValueError

    with ignored_interrupts_raised():
        Fails()
    assert told == [ValueError]
    assert sys.unraisablehook is before
