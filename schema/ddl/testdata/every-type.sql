CREATE TABLE "public"."every_type__r1" (
    "a_bool" boolean NOT NULL,
    "a_bool[]" boolean[] NOT NULL,
    "a_bytes" bytea NOT NULL,
    "a_bytes[]" bytea[] NOT NULL,
    "a_date" date NOT NULL,
    "a_date[]" date[] NOT NULL,
    "a_decimal(12,2)" numeric(12,2) NOT NULL,
    "a_decimal(12,2)[]" numeric(12,2)[] NOT NULL,
    "a_decimal(1,0)" numeric(1,0) NOT NULL,
    "a_decimal(1,0)[]" numeric(1,0)[] NOT NULL,
    "a_decimal(1000,1000)" numeric(1000,1000) NOT NULL,
    "a_decimal(1000,1000)[]" numeric(1000,1000)[] NOT NULL,
    "a_float32" real NOT NULL,
    "a_float32[]" real[] NOT NULL,
    "a_float64" double precision NOT NULL,
    "a_float64[]" double precision[] NOT NULL,
    "a_int16" smallint NOT NULL,
    "a_int16[]" smallint[] NOT NULL,
    "a_int32" integer NOT NULL,
    "a_int32[]" integer[] NOT NULL,
    "a_int64" bigint NOT NULL,
    "a_int64[]" bigint[] NOT NULL,
    "a_json" json NOT NULL,
    "a_json[]" json[] NOT NULL,
    "a_text" text NOT NULL,
    "a_text[]" text[] NOT NULL,
    "a_time" time without time zone NOT NULL,
    "a_time[]" time without time zone[] NOT NULL,
    "a_timestamp" timestamp without time zone NOT NULL,
    "a_timestamp[]" timestamp without time zone[] NOT NULL,
    "a_timestamptz" timestamp with time zone NOT NULL,
    "a_timestamptz[]" timestamp with time zone[] NOT NULL,
    "a_uuid" uuid NOT NULL,
    "a_uuid[]" uuid[] NOT NULL,
    "_batch_id" uuid NOT NULL
);

COMMENT ON TABLE "public"."every_type__r1" IS 'Rows of dataset a/every-type, loaded by tallyman. Read them through "public"."every_type".';

COMMENT ON COLUMN "public"."every_type__r1"."_batch_id" IS 'The unique id of the batch that the row came with.';

CREATE VIEW "public"."every_type" AS
SELECT "a_bool", "a_bool[]", "a_bytes", "a_bytes[]", "a_date", "a_date[]", "a_decimal(12,2)", "a_decimal(12,2)[]", "a_decimal(1,0)", "a_decimal(1,0)[]", "a_decimal(1000,1000)", "a_decimal(1000,1000)[]", "a_float32", "a_float32[]", "a_float64", "a_float64[]", "a_int16", "a_int16[]", "a_int32", "a_int32[]", "a_int64", "a_int64[]", "a_json", "a_json[]", "a_text", "a_text[]", "a_time", "a_time[]", "a_timestamp", "a_timestamp[]", "a_timestamptz", "a_timestamptz[]", "a_uuid", "a_uuid[]", "_batch_id"
FROM "public"."every_type__r1";

COMMENT ON VIEW "public"."every_type" IS 'Dataset a/every-type: its active revision.';

ALTER TABLE "public"."every_type__r1"
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

CREATE OR REPLACE VIEW "public"."every_type" AS
SELECT "a_bool", "a_bool[]", "a_bytes", "a_bytes[]", "a_date", "a_date[]", "a_decimal(12,2)", "a_decimal(12,2)[]", "a_decimal(1,0)", "a_decimal(1,0)[]", "a_decimal(1000,1000)", "a_decimal(1000,1000)[]", "a_float32", "a_float32[]", "a_float64", "a_float64[]", "a_int16", "a_int16[]", "a_int32", "a_int32[]", "a_int64", "a_int64[]", "a_json", "a_json[]", "a_text", "a_text[]", "a_time", "a_time[]", "a_timestamp", "a_timestamp[]", "a_timestamptz", "a_timestamptz[]", "a_uuid", "a_uuid[]", "_batch_id", "it's ""new""", "new_bool", "new_bool[]", "new_bytes", "new_bytes[]", "new_date", "new_date[]", "new_decimal(12,2)", "new_decimal(12,2)[]", "new_decimal(1,0)", "new_decimal(1,0)[]", "new_decimal(1000,1000)", "new_decimal(1000,1000)[]", "new_float32", "new_float32[]", "new_float64", "new_float64[]", "new_int16", "new_int16[]", "new_int32", "new_int32[]", "new_int64", "new_int64[]", "new_json", "new_json[]", "new_text", "new_text[]", "new_time", "new_time[]", "new_timestamp", "new_timestamp[]", "new_timestamptz", "new_timestamptz[]", "new_uuid", "new_uuid[]"
FROM "public"."every_type__r1";
