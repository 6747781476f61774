CREATE TABLE "marketing"."b__r1" (
    "x" bigint NOT NULL
);

COMMENT ON TABLE "marketing"."b__r1" IS 'Rows of dataset a/b, loaded by tallyman. Read them through "marketing"."b".';

CREATE VIEW "marketing"."b" AS
SELECT "x"
FROM "marketing"."b__r1";

COMMENT ON VIEW "marketing"."b" IS 'Dataset a/b: its active revision.';
