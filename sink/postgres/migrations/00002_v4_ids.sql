-- +goose Up

CREATE TABLE tallyman.v4_ids (
    revision_id bigint NOT NULL,
    unique_id   uuid NOT NULL,
    batch_time  timestamptz NOT NULL,
    PRIMARY KEY (revision_id, unique_id)
);
COMMENT ON TABLE tallyman.v4_ids IS
    'The batch time that each v4 id first came with. The id has no time in it, and the ledger''s key has one, so without this table the same id with another time would load again. Rows outlive the ledger''s partitions.';
COMMENT ON COLUMN tallyman.loaded_elements.batch_time IS
    'The time inside the id, for v4 the time that came with it; the constant 0001-01-01 for ids that are derived from content. Partitions go by it; a time without a partition is refused.';
