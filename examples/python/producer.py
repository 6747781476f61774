"""Publish rows as batches that Tallyman loads exactly once.

Reads rows as NDJSON from standard input, a JSON object a line with the
manifest's columns as keys, and ends when all of them are published. All that
it knows of Tallyman is schema/batch/FORMAT.md.

What is read is first written to an outbox, a SQLite file, with the id and the
number that it will have for ever, and only then published. So a run that was
interrupted is finished by the next one, from where the outbox is; what that
publishes a second time, the loader refuses. Rows that were not in the outbox
yet are the caller's to send again.

    pip install -r requirements.txt
    python producer.py --brokers 127.0.0.1:9092 --topic shop.orders \\
        --dataset shop/orders --source till-7 --outbox till-7.db < orders.ndjson
"""

import argparse
import datetime
import hashlib
import itertools
import os
import sqlite3
import sys
import time
import uuid

from kafka import KafkaProducer

CONTENT_TYPE = "application/x-ndjson"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
GREGORIAN = datetime.datetime(1582, 10, 15, tzinfo=datetime.timezone.utc)


def new_id(version):
    """Returns a new id and its batch time, as ce_time says it."""
    if version == 7:
        ms = time.time_ns() // 1_000_000
        bits = ms << 80 | int.from_bytes(os.urandom(10), "big")
        bits = bits & ~(0xF << 76) | 7 << 76  # the version
        bits = bits & ~(0x3 << 62) | 2 << 62  # the variant
        at = EPOCH + datetime.timedelta(milliseconds=ms)
        return uuid.UUID(int=bits), at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if version == 1:  # the time is in the id, in units of 100 ns, and cut to the microsecond
        made = uuid.uuid1()
        at = GREGORIAN + datetime.timedelta(microseconds=made.time // 10)
    else:  # 4: the time has to be kept beside the id
        made = uuid.uuid4()
        at = datetime.datetime.now(datetime.timezone.utc)
    return made, at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def headers(batch, source, dataset):
    """Returns the Kafka headers of a batch, a row of the outbox."""
    preamble = [batch["id"], source, batch["incarnation"], batch["sequence"], dataset, "", CONTENT_TYPE, batch["count"]]
    digest = hashlib.sha256()
    for line in preamble:
        digest.update(f"{line}\n".encode())
    digest.update(batch["value"])
    texts = {
        "ce_specversion": "1.0",
        "ce_type": "tallyman.batch.v1",
        "ce_id": batch["id"],
        "ce_time": batch["time"],
        "ce_source": source,
        "ce_incarnation": batch["incarnation"],
        "ce_sequence": batch["sequence"],
        "ce_subject": dataset,
        "ce_rows": batch["count"],
        "ce_digest": "sha-256=" + digest.hexdigest(),
        "content-type": CONTENT_TYPE,
    }
    return [(key, str(value).encode()) for key, value in texts.items()]


class Outbox:
    """Batches on disk, in the order in which they were made."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(
            """CREATE TABLE IF NOT EXISTS batches (
                   n INTEGER PRIMARY KEY, id TEXT UNIQUE, time TEXT, incarnation TEXT, sequence INTEGER,
                   count INTEGER, value BLOB, published INTEGER DEFAULT 0)"""
        )
        # Numbers begin anew with each opening: a restored copy of the file would use some a second time.
        self.incarnation, self.sequence = str(uuid.uuid4()), 0

    def add(self, lines, version):
        """Makes lines a batch, durably."""
        made, at = new_id(version)
        self.sequence += 1
        self.db.execute(
            "INSERT INTO batches (id, time, incarnation, sequence, count, value) VALUES (?, ?, ?, ?, ?, ?)",
            (str(made), at, self.incarnation, self.sequence, len(lines), b"".join(lines)),
        )

    def batches(self, every):
        """Returns the batches that are not published, or all of them."""
        return self.db.execute("SELECT * FROM batches WHERE ? OR NOT published ORDER BY n", (every,)).fetchall()

    def done(self, batches):
        """Notes that batches are published."""
        self.db.executemany("UPDATE batches SET published = 1 WHERE n = ?", [(b["n"],) for b in batches])


def lines(stream):
    """Yields the rows of a stream, each ended by a newline."""
    for line in stream:
        if line.strip():
            yield line.rstrip(b"\n") + b"\n"


def chunks(rows, size):
    """Yields lists of up to size rows."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def publish(producer, batches, args, outbox):
    """Publishes batches and returns when all in-sync replicas have them."""
    sent = [
        producer.send(args.topic, key=b["id"].encode(), value=b["value"], headers=headers(b, args.source, args.dataset))
        for b in batches
    ]
    for one in sent:
        one.get(timeout=60)
    outbox.done(batches)


def main():
    parser = argparse.ArgumentParser(description="Publish rows as batches that Tallyman loads exactly once.")
    parser.add_argument("--brokers", required=True, help="host:port, of several separated by commas")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--dataset", required=True, help="namespace/name")
    parser.add_argument("--source", required=True, help="this producer's name")
    parser.add_argument("--outbox", required=True, help="file that keeps the batches")
    parser.add_argument("--rows", type=int, default=1000, help="rows in a batch (%(default)s)")
    parser.add_argument("--ids", type=int, choices=(1, 4, 7), default=7, help="version of the ids (%(default)s)")
    parser.add_argument("--again", action="store_true", help="publish all that the outbox holds, not only what is new")
    args = parser.parse_args()

    outbox = Outbox(args.outbox)
    producer = KafkaProducer(bootstrap_servers=args.brokers.split(","), acks="all", compression_type="gzip")
    for rows in chunks(lines(sys.stdin.buffer), args.rows):
        outbox.add(rows, args.ids)
    waiting = outbox.batches(args.again)
    for some in chunks(waiting, 100):
        publish(producer, some, args, outbox)
    producer.close()
    print(f"published {len(waiting)} batches, {sum(b['count'] for b in waiting)} rows")


if __name__ == "__main__":
    main()
