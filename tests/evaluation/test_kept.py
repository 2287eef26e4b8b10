"""What was measured of a run stays in it, whoever measures at the same time."""

import threading

from mtl_rank.evaluation.evaluate import Evaluation
from mtl_rank.evaluation.of_run import keep
from mtl_rank.runs import Run


def test_two_windows_measured_at_once_are_both_kept(tmp_path, monkeypatch):
    run = Run(tmp_path)
    test, valid = (Evaluation(window, 1, "user_id", ()) for window in ("test", "valid"))
    other = threading.Thread(target=keep, args=(run, valid))
    details = Run.details

    def while_another_keeps(self):
        if not other.ident:
            other.start()
            other.join(0.5)
        return details(self)

    monkeypatch.setattr(Run, "details", while_another_keeps)
    keep(run, test)
    other.join()
    assert set(run.metrics()) == set(run.details()) == {"test", "valid"}
