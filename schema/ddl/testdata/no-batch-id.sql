CREATE TABLE "marketing"."b__r1" (
    "x" bigint NOT NULL
);

COMMENT ON TABLE "marketing"."b__r1" IS 'Rows of dataset a/b, loaded by tallyman. Read them through "marketing"."b".';

CREATE VIEW "marketing"."b" AS
SELECT "x"
FROM "marketing"."b__r1";

COMMENT ON VIEW "marketing"."b" IS 'Dataset a/b: its active revision.';

ALTER TABLE "marketing"."b__r1"
    ADD COLUMN "it's ""new""" text,
    ADD COLUMN "new_bool" boolean,
    ADD COLUMN "new_float64" double precision,
    ADD COLUMN "new_int64" bigint,
    ADD COLUMN "new_json" json,
    ADD COLUMN "new_text" text,
    ADD COLUMN "new_timestamptz" timestamp with time zone,
    ADD COLUMN "new_uuid" uuid;

CREATE OR REPLACE VIEW "marketing"."b" AS
SELECT "x", "it's ""new""", "new_bool", "new_float64", "new_int64", "new_json", "new_text", "new_timestamptz", "new_uuid"
FROM "marketing"."b__r1";
