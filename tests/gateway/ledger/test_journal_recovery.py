"""Who may take a dead holder's journal, what is never touched, and what is left behind."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tollway.gateway.ledger.journal import Journal, JournalError, Recovery, Settled, dead_holders
from tollway.gateway.ledger.journal.folder import HolderLock
from tollway.gateway.ledger.journal.format import CHECKSUM, HEADER_SIZE, MAGIC, Header

SEGMENT = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def write(folder: Path, holder: str = "a", *, installation: str = "here", settles: int = 60) -> None:
    """The journal of a holder that ended with settles in several segments and one open request."""
    journal = Journal.create(
        folder, holder=holder, installation=installation, segment_bytes=SEGMENT, limit_bytes=64 * SEGMENT
    )
    journal.open(1000, b"open")
    for number in range(1, settles + 1):
        journal.settle(number, b"%d" % number + b"." * 200)
    journal.close()


def take(folder: Path, holder: str = "a") -> Recovery:
    recovery = Recovery.take(folder, holder, installation="here")
    assert recovery is not None
    return recovery


def sequences(recovery: Recovery) -> list[int]:
    return [settled.sequence for settled in recovery.settled()]


def segment(folder: Path, number: int, holder: str = "a") -> Path:
    return folder / f"{holder}.{number:08}.journal"


def test_what_a_dead_holder_left_is_taken_over(folder: Path) -> None:
    write(folder)
    assert dead_holders(folder) == ["a"]
    recovery = take(folder)
    assert next(recovery.settled()) == Settled(1, 1, b"1" + b"." * 200)
    assert sequences(recovery) == list(range(1, 61))
    assert [settled.sequence for settled in recovery.settled(after=58)] == [59, 60]
    assert (recovery.first_sequence, recovery.last_sequence) == (1, 60)
    assert recovery.opened() == {1000: b"open"}
    assert (recovery.damages, recovery.torn_bytes) == ([], 0)
    assert dead_holders(folder) == []
    recovery.finish()
    assert list(folder.iterdir()) == []


def test_nothing_is_changed_until_it_is_finished(folder: Path) -> None:
    write(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    take(folder).close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sequences(take(folder)) == list(range(1, 61))


def test_a_holder_that_lives_or_is_being_recovered_is_left_alone(folder: Path) -> None:
    journal = Journal.create(folder, holder="a", installation="here", limit_bytes=2**24)
    assert dead_holders(folder) == []
    assert Recovery.take(folder, "a", installation="here") is None
    journal.open(1, b"")
    journal.close()
    recovery = take(folder)
    assert Recovery.take(folder, "a", installation="here") is None
    recovery.finish()
    assert Recovery.take(folder, "a", installation="here") is None
    assert list(folder.iterdir()) == []


def test_a_lock_without_a_journal_is_cleared_away(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.lock").touch()
    assert dead_holders(folder) == ["a"]
    assert Recovery.take(folder, "a", installation="here") is None
    assert list(folder.iterdir()) == []


def test_a_journal_without_a_lock_is_recovered(folder: Path) -> None:
    write(folder)
    (folder / "a.lock").unlink()
    assert dead_holders(folder) == ["a"]
    assert sequences(take(folder)) == list(range(1, 61))


def test_a_folder_that_was_never_made_has_no_holders(folder: Path) -> None:
    assert dead_holders(folder) == []


CROWD = """
    import os, sys
    from pathlib import Path
    from tollway.gateway.ledger.journal import Journal, Recovery, dead_holders

    folder = Path(sys.argv[1])
    for round in range(25):
        holder = f"h{round}"
        journal = Journal.create(folder, holder=holder, installation="here", segment_bytes=4096, limit_bytes=2**20)
        journal.settle(0, b"x")
        journal.close()
        go_read, go_write = os.pipe()
        done_read, done_write = os.pipe()
        children = []
        for child in range(6):
            if (pid := os.fork()):
                children.append(pid)
                continue
            os.close(go_write)
            os.read(go_read, 1)
            if child < 2:
                for _ in range(50):
                    dead_holders(folder)  # looks on, and must not keep the others from it
                os._exit(0)
            recovery = Recovery.take(folder, holder, installation="here")
            if recovery is not None:
                assert [settled.payload for settled in recovery.settled()] == [b"x"]
                os.write(done_write, b"1")
                recovery.finish()
            os._exit(0)
        os.close(go_read), os.close(go_write), os.close(done_write)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        taken = os.read(done_read, 100)
        os.close(done_read)
        print(round, len(taken), len(list(folder.iterdir())))
"""


def test_of_several_processes_exactly_one_recovers(folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CROWD), folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == [f"{round} 1 0" for round in range(25)]


def test_who_only_looks_keeps_nobody_from_it(folder: Path) -> None:
    write(folder)
    with (folder / "a.lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        timer = threading.Timer(0.02, looking.close)
        timer.start()
        assert sequences(take(folder)) == list(range(1, 61))
        timer.join()


def test_a_lock_that_was_deleted_as_it_was_taken_is_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody finished between our opening of the lock and our locking of it."""
    write(folder)
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        monkeypatch.undo()
        (folder / "a.lock").unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    take(folder)
    assert dead_holders(folder) == []
    assert Recovery.take(folder, "a", installation="here") is None


def test_who_finds_a_new_lock_before_its_owner_has_it_keeps_it_for_a_moment_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, timers = fcntl.flock, list[threading.Timer]()

    def late(fd: int, operation: int) -> None:
        monkeypatch.undo()
        other = HolderLock.take(folder, "a")
        assert other is not None
        timers.append(threading.Timer(0.02, lambda: other.release(delete=True)))
        timers[0].start()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    journal = Journal.create(folder, holder="a", installation="here", limit_bytes=2**24)
    timers[0].join()
    assert dead_holders(folder) == []
    journal.close()
    assert list(folder.iterdir()) == []


def foreign(folder: Path) -> None:
    write(folder.parent / "elsewhere", installation="there", settles=3)
    segment(folder, 2).write_bytes(segment(folder.parent / "elsewhere", 1).read_bytes())


def newer(folder: Path) -> None:
    fields = bytearray(Header("here", "a", 2, 1).encode()[:-4])
    fields[8] = 2
    fields += b"fields that only a later version knows"
    fields[10:12] = (len(fields) + 4).to_bytes(2, "little")
    segment(folder, 2).write_bytes(bytes(fields) + CHECKSUM.pack(zlib.crc32(fields)) + b"records")


def no_journal(folder: Path) -> None:
    segment(folder, 2).write_text("minutes of the meeting " * 50)


def magic_alone(folder: Path) -> None:
    segment(folder, 2).write_bytes(MAGIC + b"x" * HEADER_SIZE)


def renamed(folder: Path) -> None:
    write(folder, "b", settles=3)
    segment(folder, 1, "b").rename(segment(folder, 2))


def a_folder(folder: Path) -> None:
    segment(folder, 2).unlink()
    segment(folder, 2).mkdir()


def a_link(folder: Path) -> None:
    (folder / "target").write_bytes(segment(folder, 2).read_bytes())
    segment(folder, 2).unlink()
    segment(folder, 2).symlink_to(folder / "target")


def a_pipe(folder: Path) -> None:
    segment(folder, 2).unlink()
    os.mkfifo(segment(folder, 2))


def huge(folder: Path) -> None:
    os.truncate(segment(folder, 2), 2**40)


@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        (foreign, "belongs to the installation 'there'"),
        (newer, "version 2 of the format"),
        (no_journal, "no segment of this journal"),
        (magic_alone, "no segment of this journal"),
        (renamed, "segment 1 of the holder 'b'"),
        (a_folder, "no file"),
        (a_link, "no file"),
        (a_pipe, "no file"),
        (huge, "larger than a segment"),
    ],
)
def test_a_file_that_is_not_ours_is_reported_and_never_touched(
    folder: Path, replace: Callable[[Path], None], reason: str
) -> None:
    write(folder)
    replace(folder)
    before = segment(folder, 2).lstat()
    recovery = take(folder)
    about = [damage for damage in recovery.damages if reason in damage.reason]
    assert [(damage.file, damage.record, damage.lost) for damage in about] == [(segment(folder, 2), 0, None)]
    # The settles that should have been in it are known by number.
    lost = {sequence for damage in recovery.damages for sequence in damage.lost or ()}
    assert lost
    assert sorted(lost | set(sequences(recovery))) == list(range(1, 61))
    recovery.finish()
    assert segment(folder, 2).lstat() == before
    assert dead_holders(folder)[:1] == ["a"]
    assert [damage.file for damage in take(folder).damages] == [segment(folder, 2)]


def test_a_segment_missing_from_the_middle_is_named_with_its_settles(folder: Path) -> None:
    write(folder)
    segment(folder, 2).unlink()
    recovery = take(folder)
    (damage,) = recovery.damages
    assert damage.file == segment(folder, 2)
    assert damage.lost
    assert sorted([*damage.lost, *sequences(recovery)]) == list(range(1, 61))
    recovery.finish()
    assert list(folder.iterdir()) == []


def test_segments_missing_from_the_front_show_in_the_first_number(folder: Path) -> None:
    write(folder)
    segment(folder, 1).unlink()
    recovery = take(folder)
    assert recovery.damages == []
    assert recovery.first_sequence == sequences(recovery)[0] > 1


def test_damaged_files_are_set_aside_and_the_others_go(folder: Path) -> None:
    write(folder)
    data = bytearray(segment(folder, 2).read_bytes())
    data[HEADER_SIZE + 300] ^= 1
    segment(folder, 2).write_bytes(data)
    recovery = take(folder)
    (damage,) = recovery.damages
    assert (damage.file, damage.record) == (segment(folder, 2), 2)
    assert damage.lost is not None
    assert len(damage.lost) == 1
    recovery.finish()
    assert [path.name for path in folder.iterdir()] == ["a.00000002.journal.damaged"]
    assert (folder / "a.00000002.journal.damaged").read_bytes() == data
    assert dead_holders(folder) == []


@pytest.mark.parametrize(
    ("call", "path", "error"),
    [
        ("open", "a.lock", errno.EROFS),
        ("listdir", "", errno.EACCES),
        ("rename", "", errno.EROFS),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, path: str, error: int
) -> None:
    write(folder)
    data = bytearray(segment(folder, 1).read_bytes())
    data[HEADER_SIZE] ^= 1
    segment(folder, 1).write_bytes(data)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(JournalError, match=f"{folder}.*{path} cannot be used: {os.strerror(error)}"):
        take(folder).finish()


def test_a_file_that_cannot_be_read_is_named_and_the_lock_is_given_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    real = Path.open

    def refuse(self: Path, mode: str = "r", **options: object) -> object:
        if self == segment(folder, 2):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, mode, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(JournalError, match=r"a\.00000002\.journal cannot be used: Input/output error"):
        take(folder)
    monkeypatch.undo()
    assert sequences(take(folder)) == list(range(1, 61))
