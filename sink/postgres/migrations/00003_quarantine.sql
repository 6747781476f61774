-- +goose Up

ALTER TABLE tallyman.quarantine ADD COLUMN closed_by text, ADD COLUMN closed_why text;
COMMENT ON COLUMN tallyman.quarantine.closed_by IS
    'Who redrove or discarded the message; NULL: a loader closed it, or it is open.';
COMMENT ON COLUMN tallyman.quarantine.closed_why IS
    'Why it was discarded, in the words of who did.';

-- What waits for a manifest is looked for every few seconds.
CREATE INDEX quarantine_no_manifest ON tallyman.quarantine (revision_id) WHERE state = 'open' AND reason = 'no_manifest';
