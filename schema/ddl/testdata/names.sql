CREATE TABLE "Größe; DROP"."it's ""quoted"" \ __r1" (
    "a""b;--" text NOT NULL,
    "select" boolean,
    "_batch_id" uuid NOT NULL
);

COMMENT ON TABLE "Größe; DROP"."it's ""quoted"" \ __r1" IS E'Rows of dataset a/b, loaded by tallyman. Read them through "Größe; DROP"."it''s ""quoted"" \\ ".';

COMMENT ON COLUMN "Größe; DROP"."it's ""quoted"" \ __r1"."_batch_id" IS 'The unique id of the batch that the row came with.';

CREATE VIEW "Größe; DROP"."it's ""quoted"" \ " AS
SELECT "a""b;--", "select", "_batch_id"
FROM "Größe; DROP"."it's ""quoted"" \ __r1";

COMMENT ON VIEW "Größe; DROP"."it's ""quoted"" \ " IS 'Dataset a/b: its active revision.';

ALTER TABLE "Größe; DROP"."it's ""quoted"" \ __r1"
    ADD COLUMN "it's ""new""" text,
    ADD COLUMN "new_bool" boolean,
    ADD COLUMN "new_float64" double precision,
    ADD COLUMN "new_int64" bigint,
    ADD COLUMN "new_json" json,
    ADD COLUMN "new_text" text,
    ADD COLUMN "new_timestamptz" timestamp with time zone,
    ADD COLUMN "new_uuid" uuid;

CREATE OR REPLACE VIEW "Größe; DROP"."it's ""quoted"" \ " AS
SELECT "a""b;--", "select", "_batch_id", "it's ""new""", "new_bool", "new_float64", "new_int64", "new_json", "new_text", "new_timestamptz", "new_uuid"
FROM "Größe; DROP"."it's ""quoted"" \ __r1";
