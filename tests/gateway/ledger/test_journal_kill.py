"""kill -9 at random instants: everything that was acknowledged is found, once, as it was written."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from tollway.gateway.ledger.journal import Recovery, dead_holders, inspect

ROUNDS = 60

# Starts a writer, kills it after some milliseconds, and says what it had acknowledged.
# The writer tells: S<ticket> after a settle, F<number> after the database has taken so much.
KILLER = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    from tollway.gateway.ledger.journal import Journal

    def work(out, holder, seed):
        journal = Journal.create(
            Path(sys.argv[1]), holder=holder, installation="here", segment_bytes=8192, limit_bytes=2**20
        )
        draw = random.Random(seed)
        under_way, ticket = [], 0
        while True:
            ticket += 1
            journal.open(ticket, b"%d" % ticket * draw.randrange(1, 40))
            under_way.append(ticket)
            if draw.random() < 0.3:
                journal.write()
            if len(under_way) > draw.randrange(1, 20):
                ended = under_way.pop(draw.randrange(len(under_way)))
                if draw.random() < 0.1:
                    journal.release(ended)
                else:
                    sequence = journal.settle(ended, b"%d" % ended * draw.randrange(1, 60))
                    os.write(out, b"S%d %d\\n" % (sequence, ended))
            if draw.random() < 0.02:
                journal.sync()
                journal.flushed(max(0, journal.sequence - draw.randrange(100)))
                os.write(out, b"F%d\\n" % max(0, journal.sequence - 100))

    for round in range(int(sys.argv[2])):
        source, out = os.pipe()
        holder = f"h{round}"
        pid = os.fork()
        if not pid:
            os.close(source)
            work(out, holder, round)
        os.close(out)
        time.sleep(random.Random(-round).random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        told = b""
        while chunk := os.read(source, 65536):
            told += chunk
        os.close(source)
        print(json.dumps([holder, told.decode()]))
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), folder, str(ROUNDS)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.stderr == ""
    rounds: list[tuple[str, str]] = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    states = {state.holder: state for state in inspect(folder, installation="here")}
    acknowledged = 0
    for holder, told in rounds:
        lines = told.split("\n")[:-1]
        settles = dict(map(int, line[1:].split()) for line in lines if line[0] == "S")
        acknowledged += len(settles)
        recovery = Recovery.take(folder, holder, installation="here")
        if recovery is None:
            assert not settles  # killed before it had a journal
            continue
        assert recovery.damages == []
        found = {settled.sequence: settled for settled in recovery.settled()}
        assert all(set(item.payload.split(b"%d" % item.ticket)) == {b""} for item in found.values())
        # Whatever is not found was before the first number, and that only after the database had it.
        first = recovery.first_sequence or 1
        assert sorted(found) == list(range(first, first + len(found)))
        assert {sequence for sequence in settles if sequence >= first} <= set(found)
        assert all(found[sequence].ticket == ticket for sequence, ticket in settles.items() if sequence >= first)
        assert len(found) <= len([sequence for sequence in settles if sequence >= first]) + 1
        assert first == 1 or any(line[0] == "F" for line in lines) or len(settles) > 100
        opened = recovery.opened()
        assert not set(opened) & set(settles.values())
        assert all(set(payload.split(b"%d" % ticket)) == {b""} for ticket, payload in opened.items())
        assert (states[holder].alive, states[holder].opens) == (False, len(opened))
        recovery.finish()
    assert acknowledged > 500
    assert dead_holders(folder) == []
    assert list(folder.iterdir()) == []
