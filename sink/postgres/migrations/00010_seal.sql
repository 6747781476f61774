-- +goose Up

ALTER TABLE tallyman.loaded_elements ADD COLUMN seal bigint;
COMMENT ON COLUMN tallyman.loaded_elements.seal IS
    'The first eight bytes of the digest that came with the message, over its identity and its content: a message that comes with it once more says itself that it is this one. NULL: not known.';
