-- +goose Up

-- What was loaded in the last minutes is looked for while a revision is activated,
-- and everybody waits. Batches are appended as they load, so this is small.
CREATE INDEX loaded_elements_lately ON tallyman.loaded_elements USING brin (loaded_at) WITH (pages_per_range = 32);
