CREATE TABLE "public"."it's ""b""__r1" (
    "id" bigint NOT NULL,
    "a""t" timestamp with time zone NOT NULL,
    "_batch_id" uuid NOT NULL
) PARTITION BY RANGE ("a""t");

CREATE INDEX ON "public"."it's ""b""__r1" ("id");

CREATE UNIQUE INDEX ON "public"."it's ""b""__r1" ("id", "a""t");

COMMENT ON TABLE "public"."it's ""b""__r1" IS 'Rows of dataset a/b, loaded by tallyman. Read them through "public"."it''s ""b""".';

COMMENT ON COLUMN "public"."it's ""b""__r1"."_batch_id" IS 'The unique id of the batch that the row came with.';

CREATE VIEW "public"."it's ""b""" AS
SELECT "id", "a""t", "_batch_id"
FROM "public"."it's ""b""__r1";

COMMENT ON VIEW "public"."it's ""b""" IS 'Dataset a/b: its active revision.';

CREATE TABLE "public"."it's ""b""__r1_default" PARTITION OF "public"."it's ""b""__r1" DEFAULT;

COMMENT ON TABLE "public"."it's ""b""__r1_default" IS 'Rows of dataset a/b whose time is in no other partition.';

CREATE TABLE "public"."it's ""b""__r1_2024_02" PARTITION OF "public"."it's ""b""__r1" FOR VALUES FROM ('2024-02-01 00:00:00+00') TO ('2024-03-01 00:00:00+00');

CREATE TABLE "public"."it's ""b""__r1_2024_03" PARTITION OF "public"."it's ""b""__r1" FOR VALUES FROM ('2024-03-01 00:00:00+00') TO ('2024-04-01 00:00:00+00');

CREATE TABLE "public"."it's ""b""__r1_2024_04" PARTITION OF "public"."it's ""b""__r1" FOR VALUES FROM ('2024-04-01 00:00:00+00') TO ('2024-05-01 00:00:00+00');

CREATE TABLE "public"."it's ""b""__r1_2024_05" (LIKE "public"."it's ""b""__r1" INCLUDING ALL);

ALTER TABLE "public"."it's ""b""__r1" ATTACH PARTITION "public"."it's ""b""__r1_2024_05" FOR VALUES FROM ('2024-05-01 00:00:00+00') TO ('2024-06-01 00:00:00+00');

ALTER TABLE "public"."it's ""b""__r1"
    ADD COLUMN "it's ""new""" text,
    ADD COLUMN "new_bool" boolean,
    ADD COLUMN "new_bool[]" boolean[],
    ADD COLUMN "new_bytes" bytea,
    ADD COLUMN "new_bytes[]" bytea[],
    ADD COLUMN "new_date" date,
    ADD COLUMN "new_date[]" date[],
    ADD COLUMN "new_decimal(12,2)" numeric(12,2),
    ADD COLUMN "new_decimal(12,2)[]" numeric(12,2)[],
    ADD COLUMN "new_decimal(1,0)" numeric(1,0),
    ADD COLUMN "new_decimal(1,0)[]" numeric(1,0)[],
    ADD COLUMN "new_decimal(1000,1000)" numeric(1000,1000),
    ADD COLUMN "new_decimal(1000,1000)[]" numeric(1000,1000)[],
    ADD COLUMN "new_float32" real,
    ADD COLUMN "new_float32[]" real[],
    ADD COLUMN "new_float64" double precision,
    ADD COLUMN "new_float64[]" double precision[],
    ADD COLUMN "new_int16" smallint,
    ADD COLUMN "new_int16[]" smallint[],
    ADD COLUMN "new_int32" integer,
    ADD COLUMN "new_int32[]" integer[],
    ADD COLUMN "new_int64" bigint,
    ADD COLUMN "new_int64[]" bigint[],
    ADD COLUMN "new_json" json,
    ADD COLUMN "new_json[]" json[],
    ADD COLUMN "new_text" text,
    ADD COLUMN "new_text[]" text[],
    ADD COLUMN "new_time" time without time zone,
    ADD COLUMN "new_time[]" time without time zone[],
    ADD COLUMN "new_timestamp" timestamp without time zone,
    ADD COLUMN "new_timestamp[]" timestamp without time zone[],
    ADD COLUMN "new_timestamptz" timestamp with time zone,
    ADD COLUMN "new_timestamptz[]" timestamp with time zone[],
    ADD COLUMN "new_uuid" uuid,
    ADD COLUMN "new_uuid[]" uuid[];

CREATE OR REPLACE VIEW "public"."it's ""b""" AS
SELECT "id", "a""t", "_batch_id", "it's ""new""", "new_bool", "new_bool[]", "new_bytes", "new_bytes[]", "new_date", "new_date[]", "new_decimal(12,2)", "new_decimal(12,2)[]", "new_decimal(1,0)", "new_decimal(1,0)[]", "new_decimal(1000,1000)", "new_decimal(1000,1000)[]", "new_float32", "new_float32[]", "new_float64", "new_float64[]", "new_int16", "new_int16[]", "new_int32", "new_int32[]", "new_int64", "new_int64[]", "new_json", "new_json[]", "new_text", "new_text[]", "new_time", "new_time[]", "new_timestamp", "new_timestamp[]", "new_timestamptz", "new_timestamptz[]", "new_uuid", "new_uuid[]"
FROM "public"."it's ""b""__r1";
