"""`tollway audit`: proves that the money adds up, or says where it does not."""

from argparse import Namespace

from ..ledger.audit import Audit, audit
from ..ledger.opening import journal_folder
from .arguments import Parser, finish, on_loop
from .output import as_json, counted
from .session import opened_logs, opened_store, settings_of

DESCRIPTION = """\
Prove that the money adds up, on a system that may be serving: what users and tokens were granted is what they have
left, what serving processes hold of it, and what they were charged; counters are the sums of their hours, hours of
their log rows, where no charge stands twice; journals and the database agree. Nothing is changed. The exit status is 1
where anything differs.
"""


def parser() -> Parser:
    parser = Parser("tollway audit", description=DESCRIPTION)
    finish(parser, on_loop(run))
    return parser


async def run(arguments: Namespace) -> int:
    journal = journal_folder(settings_of(arguments).data_dir)
    async with opened_store(arguments) as store, opened_logs(arguments, store) as log_store:
        found = await audit(store, None if log_store is store else log_store, journal)
    print(as_json(_document(found)) if arguments.json else _text(found), flush=True)
    return 0 if found.clean else 1


def _document(found: Audit) -> dict[str, object]:
    return {
        "clean": found.clean,
        "waiting": found.waiting,
        "differences": [
            {"subject": each.subject, "promise": each.promise, "expected": each.expected, "found": each.found}
            for each in found.differences
        ],
        "damages": found.damages,
        "notes": found.notes,
    }


def _text(found: Audit) -> str:
    lines = [
        f"{each.subject}: {each.promise}: expected {each.expected}, found {each.found}" for each in found.differences
    ]
    lines += [f"journal: {damage}" for damage in found.damages]
    lines += [f"note: {note}" for note in found.notes]
    if found.waiting:
        lines.append(
            counted(found.waiting, "charge is written down and waits", "charges are written down and wait")
            + " for the database."
        )
    lines.append(
        "Everything adds up." if found.clean else counted(len(found.differences), "figure differs.", "figures differ.")
    )
    return "\n".join(lines)
