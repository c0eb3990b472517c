"""The log of events: what was written is read again, whatever cut its writer short."""

import pytest

from rayxform.storage.event_log import Event, EventLog, EventTail, read_events


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


def test_a_tail_gives_each_event_once_and_tells_when_the_log_was_begun_anew(tmp_path):
    url = str(tmp_path)
    tail = EventTail(url)
    assert (tail.refresh(), list(tail.read())) == (False, [])
    log = EventLog(url, {})
    log.open()
    for time in (1.0, 2.0):
        log.append(Event("Part", time))
        assert not tail.refresh()
        assert [event.time for event in tail.read()] == [time]
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"Event":"Pa')
    assert (tail.refresh(), list(tail.read())) == (False, [])
    (tmp_path / "events.jsonl").unlink()
    log = EventLog(url, {})
    log.open()
    for time in (3.0, 4.0, 5.0):
        log.append(Event("Part", time))
    assert tail.refresh()
    assert [event.time for event in tail.read()] == [3.0, 4.0, 5.0]


def test_a_tail_of_pieces_on_s3_gives_each_event_once(bucket):
    url = f"{bucket.url}/state"
    tail = EventTail(url)
    for time in (1.0, 2.0, 3.0):
        log = EventLog(url, {})
        log.open()
        log.append(Event("Part", time))
        log.close()
        assert not tail.refresh()
        assert [event.time for event in tail.read()] == [time]
    for key in bucket.keys("state/"):
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    log.open()
    log.append(Event("Part", 4.0))
    log.close()
    assert tail.refresh()
    assert [event.time for event in tail.read()] == [4.0]
