"""Progress, the judge, fed with numbers by hand: no solver, no operator."""

from __future__ import annotations

import numpy as np
import pytest

from settlepoint import Status, Tolerance
from settlepoint.progress import SUSPICION_LOOKS, Look, Progress

EPS = 2.0**-52


def judge(residuals: list[list[float]], stop: Tolerance, **extra: list) -> Progress:
    """Progress after looks at these residuals; sizes 1, strides as asked, where rows are under suspicion."""
    progress = Progress(len(residuals[0]), stop, EPS)
    for k, line in enumerate(residuals):
        n = np.array(line)
        seen = Look(n)
        if progress.suspicious:
            seen.size, seen.stride = np.ones_like(n), np.array(extra.get("stride", n))
            seen.moved = np.array(extra.get("moved", n))
            if progress.snapshot_age:
                seen.returned = np.array(extra.get("returned", 10 * n))
            if "drift" in extra:
                seen.drift = np.array(extra["drift"])
        progress.look(seen, (k + 1) * stop.every)
    return progress


def status(progress: Progress) -> list[int]:
    return progress.status.tolist()


def test_rows_end_on_their_own():
    progress = judge([[1.0, 1.0, 1.0], [1e-7, 0.5, 2e3]], Tolerance())
    assert status(progress) == [Status.CONVERGED, -1, Status.DIVERGED]
    assert progress.finished == 2
    assert progress.active.tolist() == [False, True, False]
    assert progress.best[1:].tolist() == [0.5, 1.0]


def test_the_tolerance_includes_its_edge():
    assert status(judge([[1e-6]], Tolerance(1e-6))) == [Status.CONVERGED]
    assert status(judge([[0.0]], Tolerance(0.0))) == [Status.CONVERGED]
    progress = Progress(1, Tolerance(0.0, 1e-3), EPS)
    progress.look(Look(np.array([0.5]), image=np.array([500.0])), 1)
    assert status(progress) == [Status.CONVERGED]


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_nonfinite_before_everything(lost):
    progress = judge([[1.0], [lost]], Tolerance(max_steps=2))
    assert status(progress) == [Status.NONFINITE]
    assert progress.best.tolist() == [1.0]


def test_nan_from_the_start():
    progress = judge([[np.nan, 1.0]], Tolerance())
    assert status(progress) == [Status.NONFINITE, -1]
    assert progress.best[0] == np.inf


def test_max_steps_comes_last():
    assert status(judge([[1.0], [1e-9]], Tolerance(max_steps=2))) == [Status.CONVERGED]
    assert status(judge([[1.0], [0.9]], Tolerance(max_steps=2))) == [Status.MAX_STEPS]
    assert status(judge([[1.0], [5e3]], Tolerance(max_steps=2))) == [Status.DIVERGED]


def test_rounding_is_no_progress():
    """A residual that stays within four rounding units of its best stands still: STALLED after the window."""
    trembling = [[1.0 - EPS * (k % 4)] for k in range(22)]
    assert status(judge(trembling, Tolerance(window=20), moved=[1.0])) == [Status.STALLED]


def test_slow_progress_is_progress():
    assert status(judge([[0.9999**k] for k in range(60)], Tolerance())) == [-1]


def test_stalled_or_diverged_by_how_far_it_moved():
    """Half of window * residual is the border: 10 for residual 1."""
    for moved, expected in ((9.0, Status.STALLED), (11.0, Status.DIVERGED)):
        assert status(judge([[1.0]] * 21, Tolerance(), moved=[moved])) == [expected]
    wild = [[1.0]] + [[3.0]] * 20
    assert status(judge(wild, Tolerance(), moved=[0.1])) == [Status.DIVERGED]  # above twice its best


def test_the_rounding_floor_ends_early():
    """32 rounding units of the iterate: given up after 8 looks, not after the window."""
    tiny = 30 * EPS
    looks = [[tiny]] * (SUSPICION_LOOKS + 1)
    assert status(judge(looks, Tolerance(0.0), moved=[0.0])) == [Status.STALLED]
    assert status(judge(looks[:-1], Tolerance(0.0), moved=[0.0])) == [-1]


def test_cycles_need_a_snapshot_and_a_stride():
    looks = [[1.0]] * (SUSPICION_LOOKS + 2)
    assert status(judge(looks, Tolerance(), moved=[1.0], returned=[0.0], stride=[1.0])) == [Status.CYCLING]
    assert status(judge(looks, Tolerance(), moved=[1.0], returned=[0.5], stride=[1.0])) == [-1]
    assert status(judge(looks, Tolerance(), moved=[1.0], returned=[0.0], stride=[0.0])) == [-1]  # it stands still


def test_drift_means_no_fixed_point():
    assert status(judge([[1.0]] * 21, Tolerance(), moved=[20.0], drift=[0.05])) == [Status.NO_FIXED_POINT]
    assert status(judge([[1.0]] * 21, Tolerance(), moved=[20.0], drift=[0.5])) == [Status.DIVERGED]


def test_suspicion_ends_with_progress():
    progress = judge([[1.0]] * 10, Tolerance(), moved=[1.0])
    assert progress.suspicious
    progress.look(Look(*(np.array([0.5]) for _ in range(1))), 11)
    assert not progress.suspicious


def test_recovery_waits_before_it_gives_a_row_up():
    """A solver with recovery=2 may look twice at a lost residual, and a good look forgives."""
    stop = Tolerance()
    for lost in (5e3, np.nan):
        progress = Progress(1, stop, EPS, recovery=2)
        for step, n in enumerate([1.0, lost, lost, 0.5, lost, lost, lost], start=1):
            progress.look(Look(np.array([n]), size=np.ones(1), stride=np.ones(1), moved=np.ones(1)), step)
            assert status(progress) == [-1] or step == 7
        assert status(progress) in ([Status.DIVERGED], [Status.NONFINITE])
        assert progress.best.tolist() == [0.5]


def test_keep_forgets_the_other_rows():
    progress = judge([[1.0, 2.0, 3.0], [1e-9, 1.5, 2.5]], Tolerance())
    progress.keep(progress.active)
    assert progress.best.tolist() == [1.5, 2.5]
    assert progress.first.tolist() == [2.0, 3.0]
    assert progress.finished == 0
    progress.look(Look(np.array([1.0, 2600.0])), 3)
    assert status(progress) == [-1, -1]
    progress.look(Look(np.array([0.9, 3001.0])), 4)
    assert status(progress) == [-1, Status.DIVERGED]  # growth is over the first residual of that row
