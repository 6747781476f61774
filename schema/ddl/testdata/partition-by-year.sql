CREATE TABLE "public"."b__r1" (
    "at" timestamp without time zone NOT NULL
) PARTITION BY RANGE ("at");

COMMENT ON TABLE "public"."b__r1" IS 'Rows of dataset a/b, loaded by tallyman. Read them through "public"."b".';

CREATE VIEW "public"."b" AS
SELECT "at"
FROM "public"."b__r1";

COMMENT ON VIEW "public"."b" IS 'Dataset a/b: its active revision.';

CREATE TABLE "public"."b__r1_default" PARTITION OF "public"."b__r1" DEFAULT;

COMMENT ON TABLE "public"."b__r1_default" IS 'Rows of dataset a/b whose time is in no other partition.';

CREATE TABLE "public"."b__r1_2023" PARTITION OF "public"."b__r1" FOR VALUES FROM ('2023-01-01 00:00:00') TO ('2024-01-01 00:00:00');

CREATE TABLE "public"."b__r1_2024" PARTITION OF "public"."b__r1" FOR VALUES FROM ('2024-01-01 00:00:00') TO ('2025-01-01 00:00:00');

CREATE TABLE "public"."b__r1_2025" PARTITION OF "public"."b__r1" FOR VALUES FROM ('2025-01-01 00:00:00') TO ('2026-01-01 00:00:00');

CREATE TABLE "public"."b__r1_2026" (LIKE "public"."b__r1" INCLUDING ALL);

ALTER TABLE "public"."b__r1" ATTACH PARTITION "public"."b__r1_2026" FOR VALUES FROM ('2026-01-01 00:00:00') TO ('2027-01-01 00:00:00');

ALTER TABLE "public"."b__r1"
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

CREATE OR REPLACE VIEW "public"."b" AS
SELECT "at", "it's ""new""", "new_bool", "new_bool[]", "new_bytes", "new_bytes[]", "new_date", "new_date[]", "new_decimal(12,2)", "new_decimal(12,2)[]", "new_decimal(1,0)", "new_decimal(1,0)[]", "new_decimal(1000,1000)", "new_decimal(1000,1000)[]", "new_float32", "new_float32[]", "new_float64", "new_float64[]", "new_int16", "new_int16[]", "new_int32", "new_int32[]", "new_int64", "new_int64[]", "new_json", "new_json[]", "new_text", "new_text[]", "new_time", "new_time[]", "new_timestamp", "new_timestamp[]", "new_timestamptz", "new_timestamptz[]", "new_uuid", "new_uuid[]"
FROM "public"."b__r1";
