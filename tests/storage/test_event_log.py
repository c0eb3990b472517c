"""The log of events: what was written is read again, whatever cut its writer short."""

import pytest

from rayxform.storage.event_log import Event, EventLog, read_events


@pytest.mark.parametrize("left", ["", '{"Event":"Pa', '{"Event":"' + "x" * 200_000], ids=["nothing", "a little", "much"])
def test_a_line_that_was_cut_short_is_written_over(tmp_path, left):
    url = str(tmp_path)
    for number in range(2):
        log = EventLog(url, {})
        log.open()
        log.append(Event("Part", 1.0, file=number))
        log.append(Event("Part", 2.0, file=number))
        log.close()
        with (tmp_path / "events.jsonl").open("a") as file:
            file.write(left)
    assert [(event.time, event.file) for event in read_events(url)] == [(1.0, 0), (2.0, 0), (1.0, 1), (2.0, 1)]
