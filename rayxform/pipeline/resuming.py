"""Going on from where a job was cut short: what is done, what is written, and whether it still is the same job.

Three things are known then. The log of events says which files were complete, how many records they hold, and which of them
were published. The folder of parts says what is written of the others. The plan says what all that depends on. A part is
published by a rename, so a file that was complete, of which parts are missing and the output is there, was published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from rayxform.core.naming import is_growing
from rayxform.errors import PlanChangedError, StorageError
from rayxform.pipeline.fingerprint import Fingerprint, what_changed
from rayxform.pipeline.planning import Plan, Spans
from rayxform.pipeline.rows import ErrorEntry, decode_error
from rayxform.pipeline.tracking import Part
from rayxform.storage.error_list import read_error_list
from rayxform.storage.event_log import read_events
from rayxform.storage.state import StateFolder, WrittenPart

_NAMED = 5
"""How many changed inputs an error names."""


@dataclass
class Resumption:
    """What a run need not do again.

    Attributes:
        done: file → how many records its published output holds.
        parts: file → what is written of it, in order; not of files that are done.
        totals: file → how many records it holds, where that is known; not of files that are done.
        failed: the files that the last run gave up.
        passed_over: the entries of bad records that are in those parts.
        kept_errors: lines of the list of errors about files that are done.
    """

    done: dict[int, int] = field(default_factory=dict)
    parts: dict[int, list[WrittenPart]] = field(default_factory=dict)
    totals: dict[int, int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    passed_over: list[ErrorEntry] = field(default_factory=list)
    kept_errors: list[bytes] = field(default_factory=list)

    @property
    def n_records(self) -> int:
        """How many records need not be sent."""
        return sum(self.done.values()) + sum(part.n_records for parts in self.parts.values() for part in parts)

    def covered(self) -> dict[int, Spans]:
        """File → which of its records are written."""
        return {file: merge_spans(parts) for file, parts in self.parts.items()}

    def complete(self) -> Iterator[int]:
        """The files whose parts hold all of their records, so that nothing of them need be read."""
        for file, total in self.totals.items():
            parts = self.parts.get(file, ())
            if merge_spans(parts) == ([(0, total)] if total else []) and sum(part.n_records for part in parts) == total:
                yield file


def merge_spans(parts: Iterable[WrittenPart]) -> list[tuple[int, int]]:
    """The records that parts hold, as few spans."""
    spans: list[tuple[int, int]] = []
    for part in sorted(parts, key=lambda part: part.first_record):
        if spans and part.first_record <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(part.end, spans[-1][1]))
        else:
            spans.append((part.first_record, part.end))
    return spans


def as_known(parts: Iterable[WrittenPart]) -> dict[int, Part]:
    """Parts of a file as the tracker knows them: first record → part."""
    return {
        one.first_record: Part(one.n_records, one.name, one.n_bytes, one.n_bytes if is_growing(one.name) else None)
        for one in parts
    }


def begin_or_resume(plan: Plan, mark: Fingerprint, *, restart: bool) -> tuple[Plan, Resumption]:
    """Make a job's state folder, or find in it where the job was cut short.

    Args:
        plan: the job's plan.
        mark: its fingerprint.
        restart: whether to begin anew in any case.

    Returns:
        The plan, with the ids of the first run; and what need not be done again.

    Raises:
        PlanChangedError: the job, its model or its input is not what it was; where nothing was written yet, that is no matter.
        StorageError: the state cannot be read or written.
    """
    state = StateFolder(plan.output)
    written = None if restart else state.read_plan()
    if written is None:
        state.begin(msgspec.json.encode(mark), plan.inputs)
        return plan, Resumption()
    before = _read_mark(written, state)
    changes = what_changed(before, mark)
    resumption = _find_written(plan, state)
    changed_files = [] if changes else _compare_inputs(plan, state, resumption, changes)
    if changes and not resumption.done and not resumption.parts:
        return begin_or_resume(plan, mark, restart=True)
    if changes:
        listed = "".join(f"\n    {change}" for change in changes)
        raise PlanChangedError(
            f"{plan.output.state_url} holds a job that was cut short, and this one differs from it:{listed}\n"
            "undo that, so that the job goes on; or begin anew with --restart; or choose another TransformJobName"
        )
    if changed_files:
        for file in changed_files:
            resumption.totals.pop(file, None)
        state.write_inputs(plan.inputs)
    # What is left of a file that is done was to be removed, too.
    useless = [*changed_files, *resumption.done]
    state.remove_parts([part.name for file in useless for part in resumption.parts.pop(file, ())])
    _list_errors(plan, state, resumption)
    ids = None if plan.inference_ids is None else before.inference_ids
    return replace(plan, inference_ids=ids), resumption


def _read_mark(written: bytes, state: StateFolder) -> Fingerprint:
    try:
        return msgspec.json.decode(written, type=Fingerprint)
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"cannot read {state.output.state_url}/plan.json: {error}; begin the job anew with --restart"
        ) from None


def _find_written(plan: Plan, state: StateFolder) -> Resumption:
    found = Resumption()
    n_bytes: dict[int, int] = {}
    for event in read_events(plan.output.state_url):
        if event.file is None or event.file >= len(plan.inputs):
            continue
        if event.event == "FileComplete":
            found.totals[event.file], n_bytes[event.file] = event.records, event.output_bytes
            found.failed.discard(event.file)
        elif event.event == "FileDone":
            found.done[event.file] = event.records
        elif event.event == "FileFailed":
            found.done.pop(event.file, None)
            found.failed.add(event.file)
    for part in state.parts():
        found.parts.setdefault(part.file, []).append(part)
    if not plan.job.partition_by:
        _find_published(plan, state, found, n_bytes)
    for file in found.done:
        found.totals.pop(file, None)
    return found


def _find_published(plan: Plan, state: StateFolder, found: Resumption, n_bytes: dict[int, int]) -> None:
    """Files that were published in the moment before the job was cut short."""
    whole = set(found.complete())
    for file, total in found.totals.items():
        if file not in found.done and file not in whole and state.output_bytes(plan.inputs[file].key) == n_bytes[file]:
            found.done[file] = total


def _compare_inputs(plan: Plan, state: StateFolder, resumption: Resumption, changes: list[str]) -> list[int]:
    """The files that failed and were changed since then, to mend them; what else changed is added to ``changes``."""
    before = list(state.read_inputs())
    if [key for key, _, _ in before] != [one.key for one in plan.inputs]:
        now_keys, old_keys = {one.key for one in plan.inputs}, {key for key, _, _ in before}
        changes += _named("is new", sorted(now_keys - old_keys)) + _named("is gone", sorted(old_keys - now_keys))
        return []
    changed = [file for file, one in enumerate(plan.inputs) if before[file][1:] != (one.size, one.version)]
    changes += _named("is not what it was", [plan.inputs[file].key for file in changed if file not in resumption.failed])
    return [] if changes else changed


def _named(what: str, keys: Sequence[str]) -> list[str]:
    more = [f"and {len(keys) - _NAMED} more"] if len(keys) > _NAMED else []
    return [f"the input {key} {what}" for key in keys[:_NAMED]] + more


def _list_errors(plan: Plan, state: StateFolder, resumption: Resumption) -> None:
    """Keep what the list of errors says of files that are done, and add what stands beside the parts of others."""
    done = {plan.inputs[file].key for file in resumption.done}
    for line, entry in read_error_list(plan.output.errors_url, ErrorEntry):
        if entry.object in done:
            resumption.kept_errors.append(line)
    for parts in resumption.parts.values():
        for part in parts:
            if part.has_errors:
                resumption.passed_over += map(decode_error, state.read_part_errors(part))
