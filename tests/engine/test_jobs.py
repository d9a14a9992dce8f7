import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import BlindspotError
from engine.jobs import STALE_SECONDS, Cancelled, JobQueue, job_id

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def queue(tmp_path):
    queue = JobQueue(tmp_path / "results", limit=2)
    yield queue
    queue.close(timeout=5)


class Gate:
    """Work that reports step by step, as fast as it is let through."""

    def __init__(self, steps=3):
        self.steps, self.calls = steps, 0
        self.started, self.opened = threading.Event(), threading.Event()

    def __call__(self, task):
        self.calls += 1
        self.started.set()
        self.opened.wait(5)
        for step in range(1, self.steps + 1):
            task.report(step, self.steps, b"picture %d" % step)
        (task.folder / "answer.txt").write_text("42")


def test_a_result_appears_whole_under_the_hash_of_its_parameters(queue, tmp_path):
    work = Gate()
    work.opened.set()
    job = queue.wait(queue.submit({"concept": 3}, work).id, 5)
    assert job.state == "done" and job.ended
    assert job.result_dir == tmp_path / "results" / job_id({"concept": 3})
    assert (job.result_dir / "answer.txt").read_text() == "42"
    assert (job.step, job.steps, job.preview) == (3, 3, b"picture 3")
    assert os.listdir(tmp_path / "results") == [job.id]


def test_the_order_of_parameters_does_not_matter():
    assert job_id({"a": 1, "b": 2}) == job_id({"b": 2, "a": 1}) != job_id({"a": 1, "b": 3})


def test_nothing_is_visible_while_the_work_goes_on(queue):
    work = Gate()
    job = queue.submit({"concept": 1}, work)
    work.started.wait(5)
    assert queue.get(job.id).result_dir is None
    assert not (queue.results / job.id).exists()
    work.opened.set()


def test_duplicates_join_one_job(queue):
    work = Gate()
    first, second = (queue.submit({"concept": 1}, work) for _ in range(2))
    work.opened.set()
    queue.wait(first.id, 5)
    third = queue.submit({"concept": 1}, work)
    assert first.id == second.id == third.id
    assert third.state == "done" and work.calls == 1 and len(queue.jobs()) == 1


def test_the_queue_is_bounded_and_tells_positions(queue):
    work = Gate()
    queue.submit({"concept": 0}, work)
    work.started.wait(5)
    waiting = [queue.submit({"concept": n}, work) for n in (1, 2)]
    assert [job.position for job in waiting] == [1, 2]
    with pytest.raises(BlindspotError, match="queue is full with 2 waiting jobs"):
        queue.submit({"concept": 3}, work)
    assert queue.submit({"concept": 2}, work).state == "queued"
    work.opened.set()
    assert queue.wait(waiting[1].id, 5).state == "done"


def test_a_running_job_is_cancelled_at_its_next_report(queue):
    work = Gate()
    job = queue.submit({"concept": 1}, work)
    work.started.wait(5)
    queue.cancel(job.id)
    work.opened.set()
    ended = queue.wait(job.id, 5)
    assert ended.state == "cancelled" and ended.step == 0 and ended.error is None
    assert os.listdir(queue.results) == []


def test_a_waiting_job_is_cancelled_at_once(queue):
    first, second = Gate(), Gate()
    queue.submit({"concept": 1}, first)
    first.started.wait(5)
    job = queue.submit({"concept": 2}, second)
    queue.cancel(job.id)
    assert queue.get(job.id).state == "cancelled"
    first.opened.set()
    queue.close(5)
    assert second.calls == 0


def test_a_job_asked_for_again_while_it_is_being_cancelled_starts_afresh(queue):
    work = Gate()
    job = queue.submit({"concept": 1}, work)
    work.started.wait(5)
    queue.cancel(job.id)
    again = queue.submit({"concept": 1}, work)
    work.opened.set()
    assert again.id == job.id
    assert queue.wait(again.id, 5).state == "done" and work.calls == 2


def test_cancelling_what_has_ended_changes_nothing(queue):
    work = Gate()
    work.opened.set()
    job = queue.wait(queue.submit({"concept": 1}, work).id, 5)
    queue.cancel(job.id)
    assert queue.get(job.id).state == "done"
    assert queue.submit({"concept": 1}, work).state == "done" and work.calls == 1


def test_a_user_s_error_is_passed_on_and_the_worker_lives(queue):
    def fail(task):
        (task.folder / "half.txt").write_text("half")
        raise BlindspotError("There is no\n concept 999.")

    failed = queue.wait(queue.submit({"concept": 999}, fail).id, 5)
    assert failed.state == "failed" and failed.error == "There is no concept 999."
    assert os.listdir(queue.results) == []
    work = Gate()
    work.opened.set()
    assert queue.wait(queue.submit({"concept": 999}, work).id, 5).state == "done"


def test_a_defect_is_one_sentence(queue):
    failed = queue.wait(queue.submit({"concept": 1}, lambda task: 1 / 0).id, 5)
    assert failed.error == "The job ended with ZeroDivisionError: division by zero."


def test_a_finished_result_is_found_after_a_restart(queue):
    work = Gate()
    work.opened.set()
    job = queue.wait(queue.submit({"concept": 1}, work).id, 5)
    restarted = JobQueue(queue.results)
    found = restarted.submit({"concept": 1}, work)
    assert (found.state, found.result_dir, work.calls) == ("done", job.result_dir, 1)
    assert restarted.get(job.id).state == "done"
    restarted.close(5)


@pytest.mark.parametrize("key", ["0" * 16, "../../../../etc", "", "."])
def test_an_unknown_id_is_nothing(queue, key):
    assert queue.get(key) is None
    queue.cancel(key)


def test_time_left_follows_the_pace_since_the_first_report(queue):
    reached, go_on = threading.Event(), threading.Event()

    def work(task):
        time.sleep(0.3)
        task.report(0, 10)
        for step in (1, 2):
            time.sleep(0.05)
            task.report(step, 10)
        reached.set()
        go_on.wait(5)

    job = queue.submit({"concept": 1}, work)
    assert job.seconds_left is None
    reached.wait(5)
    assert queue.get(job.id).seconds_left == pytest.approx(0.4, abs=0.2)
    go_on.set()


def test_two_devices_work_at_the_same_time(tmp_path):
    queue = JobQueue(tmp_path, devices=("cpu", "cuda:0"))
    meeting = threading.Barrier(2, timeout=5)
    devices = set()

    def work(task):
        meeting.wait()
        devices.add(task.device)

    jobs = [queue.submit({"concept": n}, work) for n in range(2)]
    assert [queue.wait(job.id, 5).state for job in jobs] == ["done", "done"]
    assert devices == {"cpu", "cuda:0"}
    queue.close(5)


def test_old_jobs_are_forgotten_but_not_their_results(tmp_path):
    queue = JobQueue(tmp_path, remembered=2)
    work = Gate()
    work.opened.set()
    ids = []
    for n in range(5):
        ids.append(queue.submit({"concept": n}, work).id)
        queue.wait(ids[-1], 5)
    assert len(queue.jobs()) <= 3
    assert all(queue.get(key).state == "done" for key in ids)
    queue.close(5)


def test_what_a_killed_process_left_is_swept_a_day_later(tmp_path):
    old, young = tmp_path / ".aaaa.partial-x", tmp_path / ".bbbb.partial-y"
    old.mkdir(), young.mkdir()
    os.utime(old, (time.time() - STALE_SECONDS - 60,) * 2)
    JobQueue(tmp_path).close(5)
    assert os.listdir(tmp_path) == [young.name]


def test_cancelled_is_not_a_user_s_error():
    assert not issubclass(Cancelled, BlindspotError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()])
def test_whatever_a_job_raises_the_next_one_runs(queue, error):
    def work(task):
        raise error

    failed = queue.wait(queue.submit({"concept": 1}, work).id, 5)
    assert failed.state == "failed" and type(error).__name__ in failed.error
    good = Gate()
    good.opened.set()
    assert queue.wait(queue.submit({"concept": 2}, good).id, 5).state == "done"


def test_a_cancel_ends_only_what_nobody_else_holds(queue):
    work, waiting = Gate(), Gate()
    running = queue.submit({"concept": 1}, work, "ann")
    work.started.wait(5)
    queue.submit({"concept": 1}, work, "bob")
    queue.submit({"concept": 2}, waiting, "ann")
    followed = queue.submit({"concept": 2}, waiting, "ann")
    assert queue.follow(followed.id, "eve").state == "queued"
    assert not queue.cancel(running.id, "ann") and not queue.cancel(followed.id, "ann")
    assert queue.cancel(followed.id, "eve") and queue.get(followed.id).state == "cancelled"
    work.opened.set()
    assert queue.wait(running.id, 5).state == "done"


def test_a_holder_who_has_gone_keeps_no_job_alive(tmp_path):
    queue, work = JobQueue(tmp_path, alive=lambda holder: holder != "gone"), Gate()
    job = queue.submit({"concept": 1}, work, "gone")
    queue.follow(job.id, "ann")
    assert queue.cancel(job.id, "ann")
    work.opened.set()
    assert queue.wait(job.id, 5).state == "cancelled"
    queue.close(5)


def test_one_holder_cannot_fill_the_queue(tmp_path):
    queue, work = JobQueue(tmp_path, limit=8, each=2), Gate()
    jobs = [queue.submit({"concept": n}, work, "ann") for n in range(2)]
    with pytest.raises(BlindspotError, match="You have 2 jobs that have not ended"):
        queue.submit({"concept": 3}, work, "ann")
    assert queue.submit({"concept": 1}, work, "ann").id == jobs[1].id
    assert queue.submit({"concept": 3}, work, "bob").state == "queued"
    queue.cancel(jobs[1].id, "ann")
    assert queue.submit({"concept": 4}, work, "ann").state == "queued"
    work.opened.set()
    queue.close(5)


def test_old_results_go_and_only_results(tmp_path):
    queue, work = JobQueue(tmp_path, kept=2), Gate()
    (tmp_path / "holiday").mkdir()
    (tmp_path / "f" / ("0" * 16)).mkdir(parents=True)
    (tmp_path / ("0" * 16)).symlink_to(tmp_path / "f" / ("0" * 16))
    work.opened.set()
    ids = []
    for n in range(4):
        ids.append(queue.submit({"concept": n}, work).id)
        queue.wait(ids[-1], 5)
        time.sleep(0.02)
    assert [job.id for job in queue.finished()] == ids[:1:-1]
    assert queue.get(ids[0]) is None and queue.get(ids[3]).state == "done"
    assert sorted(os.listdir(tmp_path)) == sorted(["holiday", "f", "0" * 16, *ids[2:]])
    queue.close(5)
    assert [job.id for job in JobQueue(tmp_path).finished()] == ids[:1:-1]


@pytest.mark.parametrize("plant", ["link", "dangling", "file"])
def test_what_is_planted_in_the_place_of_results_is_no_result(queue, tmp_path, plant):
    queue.results.mkdir(exist_ok=True)
    place, elsewhere = queue.results / job_id({"concept": 1}), tmp_path / "elsewhere"
    if plant == "file":
        place.write_text("x")
    else:
        place.symlink_to(elsewhere)
    if plant == "link":
        elsewhere.mkdir()
        (elsewhere / "secret").write_text("x")
    assert queue.get(place.name) is None
    work = Gate()
    work.opened.set()
    assert queue.wait(queue.submit({"concept": 1}, work).id, 5).state == "done"
    assert not place.is_symlink() and os.listdir(place) == ["answer.txt"]
    assert plant != "link" or os.listdir(elsewhere) == ["secret"]


def python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run code in another process, which has `queue` over the folder of its first argument."""
    begin = "import os, sys, time\nfrom pathlib import Path\nfrom engine.jobs import JobQueue\n"
    begin += "queue = JobQueue(Path(sys.argv[1]))\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_job_whose_process_dies_leaves_nothing_and_runs_again(tmp_path):
    ended = python(
        """
        def work(task):
            (task.folder / "half").write_text("x")
            os.kill(os.getpid(), 9)
        queue.wait(queue.submit({"concept": 1}, work).id, 20)
        """,
        tmp_path,
    )
    assert ended.returncode == -9 and len(os.listdir(tmp_path)) == 1
    queue, work = JobQueue(tmp_path), Gate()
    assert queue.finished() == [] and queue.get(job_id({"concept": 1})) is None
    work.opened.set()
    job = queue.wait(queue.submit({"concept": 1}, work).id, 5)
    assert job.state == "done" and os.listdir(job.result_dir) == ["answer.txt"]
    queue.close(5)


def test_a_full_disk_fails_the_job_alone_and_half_a_result_is_none(tmp_path):
    """A file may not grow beyond a kilobyte in that process until it is told otherwise."""
    ended = python(
        """
        import resource
        def work(task):
            (task.folder / "large").write_bytes(b"x" * 5000)
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
        failed = queue.wait(queue.submit({"concept": 1}, work).id, 20)
        assert failed.state == "failed" and os.strerror(27) in failed.error, failed
        assert os.listdir(queue.results) == [] and queue.get("0" * 16) is None
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        done = queue.wait(queue.submit({"concept": 1}, work).id, 20)
        assert done.state == "done" and (done.result_dir / "large").stat().st_size == 5000
        """,
        tmp_path,
    )
    assert ended.returncode == 0, ended.stderr


def test_two_processes_may_do_the_same_job_in_one_folder(tmp_path):
    """Both wait for each other inside the work, so that both come to keep its results."""
    code = """
        def work(task):
            (queue.results / f"here-{sys.argv[2]}").touch()
            (task.folder / "answer.txt").write_text("42")
            while len(list(queue.results.glob("here-*"))) < 2:
                time.sleep(0.01)
        job = queue.wait(queue.submit({"concept": 1}, work).id, 40)
        assert job.state == "done" and (job.result_dir / "answer.txt").read_text() == "42", job
        """
    with ThreadPoolExecutor() as pool:
        for ended in pool.map(lambda number: python(code, tmp_path, number), range(2)):
            assert ended.returncode == 0, ended.stderr
    assert sorted(os.listdir(tmp_path)) == [job_id({"concept": 1}), "here-0", "here-1"]


def test_results_that_another_process_keeps_at_the_same_moment_are_the_job_s(queue, monkeypatch):
    seen = []

    def replaced(source, place):
        place.mkdir()
        (place / "answer.txt").write_text("42")
        seen.append(source)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr("engine.jobs.os.replace", replaced)
    work = Gate()
    work.opened.set()
    job = queue.wait(queue.submit({"concept": 1}, work).id, 5)
    assert job.state == "done" and os.listdir(queue.results) == [job.id] and len(seen) == 1


def test_links_named_like_leftovers_are_left_alone(tmp_path):
    (tmp_path / ".aaaa.partial-x").symlink_to("/nowhere")
    (tmp_path / "kept").mkdir()
    (tmp_path / ".bbbb.partial-x").symlink_to(tmp_path / "kept")
    os.utime(tmp_path / "kept", (0, 0))
    JobQueue(tmp_path).close(5)
    assert sorted(os.listdir(tmp_path)) == [".aaaa.partial-x", ".bbbb.partial-x", "kept"]
