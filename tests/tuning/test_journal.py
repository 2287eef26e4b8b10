"""A study shared by processes that may die at any moment: every trial is trained by one, none is lost."""

import os
import signal

import pytest
from processes import processes

from mtl_rank.tuning.journal import Study
from mtl_rank.tuning.space import parse_search

SPACE = parse_search(("ctr", "cvr"), ["fit.lr=0.001..0.1"])


def study_in(folder):
    folder.mkdir(exist_ok=True)
    return Study(folder, SPACE, 2, seed=3)


def work(study, wanted, at_most=99):
    """Do trials: a loss of each task that follows from the lambdas. Returns those that were done."""
    done = []
    while len(done) < at_most:
        with study.claim(wanted) as claim:
            if claim is None:
                break
            done.append((claim.number, claim.values))
            lambdas = SPACE.lambdas(claim.values)
            values = [1 / lambdas["ctr"], 1 / lambdas["cvr"]]
            study.succeeded(claim, values, {"loss": values[0]})
    return done


def exit_codes(target, *arguments):
    """Of one process for each tuple of arguments, all at once; -9 = it killed itself."""
    children = [processes.Process(target=target, args=each) for each in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]


def test_trials_begin_with_those_asked_for_and_end_at_the_number_wanted(tmp_path):
    study = study_in(tmp_path / "s")
    study.start_with([{"lambda/cvr": 1.0}, {"lambda/cvr": 4.0}])
    done = work(study, 6)
    assert [number for number, _ in done] == [0, 1, 2, 3, 4, 5]
    assert [values["lambda/cvr"] for _, values in done[:2]] == [1, 4]
    assert work(study, 6) == []
    assert len(work(study, 9)) == 3
    assert study.complete()[0].user_attrs["metrics"] == {"loss": 1.0}


def test_a_study_opened_again_goes_on_as_if_it_had_not_been_closed(tmp_path):
    whole = study_in(tmp_path / "whole")
    whole.start_with([{"lambda/cvr": 1.0}])
    expected = work(whole, 12)
    found = []
    for _ in range(4):
        study = study_in(tmp_path / "parts")
        study.start_with([{"lambda/cvr": 1.0}])
        found += work(study, 12, at_most=3)
    assert found == expected
    assert len({values["fit.lr"] for _, values in found}) == 12


def die_at_a_trial(folder):
    with study_in(folder).claim(5) as claim:
        (claim.folder / "values").write_text(repr(claim.values))
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_trial_whose_process_died_is_taken_up_again_with_its_values(tmp_path):
    study = study_in(tmp_path / "s")
    work(study, 2)
    assert exit_codes(die_at_a_trial, (tmp_path / "s",)) == [-9]
    with study.claim(5) as claim:
        assert (claim.number, claim.again) == (2, True)
        assert repr(claim.values) == (claim.folder / "values").read_text()
        # While it is being trained nobody else gets it.
        with study_in(tmp_path / "s").claim(5) as other:
            assert (other.number, other.again) == (3, False)
            study.succeeded(other, [1, 1], {})
        study.succeeded(claim, [1, 1], {})
    assert [number for number, _ in work(study, 5)] == [4]


def die_choosing_values(folder):
    half = study_in(folder)
    half._claimed = lambda trial, again: os.kill(os.getpid(), signal.SIGKILL)
    half.claim(5).__enter__()


def test_a_process_killed_while_it_chose_values_leaves_a_trial_that_can_be_trained(tmp_path):
    study = study_in(tmp_path / "s")
    study.start_with([{"lambda/cvr": 2.0}])
    assert exit_codes(die_choosing_values, (tmp_path / "s",)) == [-9]
    with study.claim(5) as claim:
        assert (claim.number, claim.again, claim.values["lambda/cvr"]) == (0, True, 2.0)
        assert 0.001 <= claim.values["fit.lr"] <= 0.1


@pytest.mark.parametrize("torn", [b'{"op_code": 4, "wor', b"x", b""])
def test_a_line_that_a_killed_process_did_not_finish_is_cut_off(tmp_path, torn):
    study = study_in(tmp_path / "s")
    work(study, 3)
    journal = tmp_path / "s/journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    again = study_in(tmp_path / "s")
    assert len(again.complete()) == 3
    assert len(work(again, 5)) == 2
    assert len(study_in(tmp_path / "s").complete()) == 5
    assert journal.read_bytes().startswith(whole)


def do_some(folder, names):
    done = work(study_in(folder), 20)
    names.write_text("\n".join(str(number) for number, _ in done))


def test_processes_share_the_trials_and_do_no_more_than_wanted(tmp_path):
    study_in(tmp_path / "s")
    assert exit_codes(do_some, *[(tmp_path / "s", tmp_path / name) for name in ("a", "b", "c")]) == [0, 0, 0]
    numbers = [int(n) for name in ("a", "b", "c") for n in (tmp_path / name).read_text().split()]
    assert sorted(numbers) == list(range(20))
    assert len(study_in(tmp_path / "s").complete()) == 20


def test_failed_trials_count_and_keep_their_reason(tmp_path):
    study = study_in(tmp_path / "s")
    with study.claim(3) as claim:
        study.failed(claim, "training diverged")
    assert len(work(study, 3)) == 2
    assert study.failures() == {0: "training diverged"}


def test_the_front_is_what_nothing_beats(tmp_path):
    study = study_in(tmp_path / "s")
    for values in ([1, 4], [2, 2], [3, 3], [4, 1], [2, 5]):
        with study.claim(9) as claim:
            study.succeeded(claim, values, {})
    assert study.with_front()[1] == {0, 1, 3}


def test_a_trial_that_ends_during_the_look_is_looked_at_too(tmp_path, monkeypatch):
    study = study_in(tmp_path / "s")
    better = [[1, 1], [2, 2]]

    def complete_and_end_one(study):
        found = complete(study)
        if better:
            with study.claim(9) as claim:
                study.succeeded(claim, better.pop(), {})
        return found

    complete = Study.complete
    monkeypatch.setattr(Study, "complete", complete_and_end_one)
    trials, front = study.with_front()
    assert [trial.values for trial in trials] == [[2, 2], [1, 1]]
    assert front == {1}
