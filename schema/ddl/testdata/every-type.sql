CREATE TABLE "public"."every_type__r1" (
    "a_bool" boolean NOT NULL,
    "a_float64" double precision NOT NULL,
    "a_int64" bigint NOT NULL,
    "a_json" json NOT NULL,
    "a_text" text NOT NULL,
    "a_timestamptz" timestamp with time zone NOT NULL,
    "a_uuid" uuid NOT NULL,
    "_batch_id" uuid NOT NULL
);

COMMENT ON TABLE "public"."every_type__r1" IS 'Rows of dataset a/every-type, loaded by tallyman. Read them through "public"."every_type".';

COMMENT ON COLUMN "public"."every_type__r1"."_batch_id" IS 'The unique id of the batch that the row came with.';

CREATE VIEW "public"."every_type" AS
SELECT "a_bool", "a_float64", "a_int64", "a_json", "a_text", "a_timestamptz", "a_uuid", "_batch_id"
FROM "public"."every_type__r1";

COMMENT ON VIEW "public"."every_type" IS 'Dataset a/every-type: its active revision.';

ALTER TABLE "public"."every_type__r1"
    ADD COLUMN "it's ""new""" text,
    ADD COLUMN "new_bool" boolean,
    ADD COLUMN "new_float64" double precision,
    ADD COLUMN "new_int64" bigint,
    ADD COLUMN "new_json" json,
    ADD COLUMN "new_text" text,
    ADD COLUMN "new_timestamptz" timestamp with time zone,
    ADD COLUMN "new_uuid" uuid;

CREATE OR REPLACE VIEW "public"."every_type" AS
SELECT "a_bool", "a_float64", "a_int64", "a_json", "a_text", "a_timestamptz", "a_uuid", "_batch_id", "it's ""new""", "new_bool", "new_float64", "new_int64", "new_json", "new_text", "new_timestamptz", "new_uuid"
FROM "public"."every_type__r1";
