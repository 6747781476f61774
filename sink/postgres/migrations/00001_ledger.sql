-- +goose Up

CREATE TABLE tallyman.target (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    name    text NOT NULL CHECK (name <> '')
);
COMMENT ON TABLE tallyman.target IS
    'The name by which sources and loaders know this warehouse: one row. A clone keeps its old name until init --rename-target.';

CREATE TABLE tallyman.datasets (
    dataset       text NOT NULL,
    manifest_hash text NOT NULL CHECK (manifest_hash ~ '^[0-9a-f]{64}$'),
    manifest      json NOT NULL,
    topic         text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, manifest_hash)
);
COMMENT ON TABLE tallyman.datasets IS
    'Every manifest that was ever applied, by dataset and hash. Rows are never changed.';
COMMENT ON COLUMN tallyman.datasets.manifest IS
    'The canonical form, byte for byte (json, not jsonb), so that its SHA-256 is manifest_hash.';

CREATE TABLE tallyman.revisions (
    revision_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset         text NOT NULL,
    manifest_hash   text NOT NULL,
    physical_schema text NOT NULL,
    physical_table  text NOT NULL,
    state           text NOT NULL CHECK (state IN ('building', 'active', 'standby', 'retired')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (physical_schema, physical_table),
    FOREIGN KEY (dataset, manifest_hash) REFERENCES tallyman.datasets (dataset, manifest_hash)
);
CREATE UNIQUE INDEX revisions_active ON tallyman.revisions (dataset) WHERE state = 'active';
COMMENT ON TABLE tallyman.revisions IS
    'One physical table that holds a dataset, with ledger entries and positions of its own. A dataset has at most one active revision.';

CREATE TABLE tallyman.loaded_elements (
    revision_id bigint NOT NULL,
    batch_time  timestamptz NOT NULL,
    unique_id   uuid NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('loaded', 'discarded')),
    incarnation uuid,
    sequence    bigint CHECK (sequence > 0),
    row_count   bigint NOT NULL CHECK (row_count >= 0),
    byte_count  bigint NOT NULL CHECK (byte_count >= 0),
    digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
    loaded_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, batch_time, unique_id)
) PARTITION BY RANGE (batch_time);
CREATE INDEX loaded_elements_stream ON tallyman.loaded_elements (revision_id, incarnation, sequence);
COMMENT ON TABLE tallyman.loaded_elements IS
    'The ledger: a row for each batch that was loaded, inserted by the transaction that loaded its rows. Its key is what refuses a batch that comes twice.';
COMMENT ON COLUMN tallyman.loaded_elements.batch_time IS
    'The time inside the id; the constant 0001-01-01 for ids that are derived from content. Partitions go by it; a time without a partition is refused.';
COMMENT ON COLUMN tallyman.loaded_elements.incarnation IS
    'The stream that the batch came on, with its number there in sequence; null for producers that do not number their batches.';
COMMENT ON COLUMN tallyman.loaded_elements.byte_count IS
    'Bytes of the batch''s value as it travelled, before Kafka''s compression.';
COMMENT ON COLUMN tallyman.loaded_elements.digest IS
    'SHA-256 of dataset, schema, content type, row count and value: the same id with another digest is an id_conflict.';

CREATE TABLE tallyman.positions (
    revision_id      bigint NOT NULL,
    cluster          text COLLATE "C" NOT NULL,
    topic            text COLLATE "C" NOT NULL,
    partition        integer NOT NULL CHECK (partition >= 0),
    next_offset      bigint NOT NULL CHECK (next_offset >= 0),
    era              bigint NOT NULL CHECK (era >= 1),
    anchor_offset    bigint,
    anchor_timestamp timestamptz,
    anchor_sha256    bytea CHECK (octet_length(anchor_sha256) = 32),
    log_start        bigint NOT NULL CHECK (log_start >= -1),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, cluster, topic, partition),
    CHECK (num_nulls(anchor_offset, anchor_timestamp, anchor_sha256) IN (0, 3))
) WITH (fillfactor = 50);
COMMENT ON TABLE tallyman.positions IS
    'The next offset to read, per revision and partition; moved by the transaction that commits what was read. Offsets kept in Kafka are only a hint for lag tools.';
COMMENT ON COLUMN tallyman.positions.era IS
    'Raised by a rewind, a stop or an activation: a loader that still holds an older era moves nothing any more.';
COMMENT ON COLUMN tallyman.positions.anchor_offset IS
    'The newest data record before next_offset, with its Kafka timestamp and its SHA-256: recognises a topic that was deleted and made again.';
COMMENT ON COLUMN tallyman.positions.log_start IS
    'The log''s start when last seen; -1: never.';

CREATE TABLE tallyman.quarantine (
    revision_id     bigint NOT NULL,
    sha256          bytea NOT NULL CHECK (octet_length(sha256) = 32),
    unique_id       uuid,
    batch_time      timestamptz,
    source          text,
    incarnation     uuid,
    sequence        bigint,
    row_count       bigint,
    content         bytea CHECK (octet_length(content) = 32),
    cluster         text NOT NULL,
    topic           text NOT NULL,
    partition       integer NOT NULL,
    kafka_offset    bigint NOT NULL,
    kafka_timestamp timestamptz,
    reason          text NOT NULL,
    detail          text NOT NULL,
    message_key     bytea,
    headers         bytea[] NOT NULL,
    payload         bytea,
    payload_size    bigint NOT NULL,
    payload_sha256  bytea NOT NULL CHECK (octet_length(payload_sha256) = 32),
    payload_whole   boolean NOT NULL,
    state           text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'redriven', 'discarded')),
    seen_at         timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz,
    PRIMARY KEY (revision_id, sha256)
);
CREATE INDEX quarantine_open ON tallyman.quarantine (revision_id, unique_id) WHERE state = 'open';
COMMENT ON TABLE tallyman.quarantine IS
    'Messages that can''t be loaded, kept whole with the reason. A row is closed (redriven) by the transaction that loads a good copy.';
COMMENT ON COLUMN tallyman.quarantine.sha256 IS
    'SHA-256 of headers and value, so the same message twice is one row; of the coordinates if it has neither.';
COMMENT ON COLUMN tallyman.quarantine.unique_id IS
    'The batch''s identity as far as the envelope could be read; to be believed unless reason is no_id, bad_id, bad_envelope, bad_digest or bad_rows.';
COMMENT ON COLUMN tallyman.quarantine.content IS
    'Digest of the content alone, as in loaded_elements.digest: only a copy with this content closes the row. NULL: not known, any copy does.';
COMMENT ON COLUMN tallyman.quarantine.headers IS
    'Key and value of each Kafka header in turn; raw bytes, since neither need be text.';
COMMENT ON COLUMN tallyman.quarantine.payload IS
    'The value: all of it up to 8 MiB, else its first 64 KiB (payload_whole tells), with size and SHA-256 of all of it.';

CREATE TABLE tallyman.gaps (
    revision_id  bigint NOT NULL,
    cluster      text NOT NULL,
    topic        text NOT NULL,
    partition    integer NOT NULL,
    first_offset bigint NOT NULL,
    last_offset  bigint NOT NULL,
    reason       text NOT NULL,
    seen_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision_id, cluster, topic, partition, first_offset, last_offset),
    CHECK (first_offset >= 0 AND last_offset >= first_offset)
);
COMMENT ON TABLE tallyman.gaps IS
    'Offsets that were never read, first and last included: what they held has to be published again.';
