-- Roles for Tallyman, to be run by somebody who may create roles, in the
-- database that is the warehouse. It is safe to repeat. They are roles to be
-- granted to users, and can't log in themselves:
--
--   tallyman_owner   owns everything; runs tallyman init and tallyman dataset apply
--   tallyman_loader  runs tallyman load, rewind and status
--   tallyman_reader  runs tallyman status, and reads the ledger and the datasets
DO $$
DECLARE
    name text;
    statement text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tallyman_owner', 'tallyman_loader', 'tallyman_reader'] LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'tallyman_owner', 'MEMBER') THEN
        GRANT tallyman_owner TO CURRENT_USER;
    END IF;
    -- The schemas of datasets.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO tallyman_owner', current_database());
    IF to_regnamespace('public') IS NOT NULL THEN
        GRANT USAGE, CREATE ON SCHEMA public TO tallyman_owner;
    END IF;
    -- What an earlier tallyman init made belongs to whoever ran it.
    CREATE SCHEMA IF NOT EXISTS tallyman;
    ALTER SCHEMA tallyman OWNER TO tallyman_owner;
    FOR statement IN
        SELECT format('ALTER TABLE %s OWNER TO tallyman_owner', c.oid::regclass)
        FROM pg_class c WHERE c.relnamespace = 'tallyman'::regnamespace AND c.relkind IN ('r', 'p', 'v')
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO tallyman_owner', p.oid::regprocedure)
        FROM pg_proc p WHERE p.pronamespace = 'tallyman'::regnamespace
    LOOP
        EXECUTE statement;
    END LOOP;
    IF to_regclass('tallyman.revisions') IS NOT NULL THEN
        FOR statement IN
            SELECT format('ALTER TABLE %s OWNER TO tallyman_owner', c.oid::regclass)
            FROM tallyman.revisions r
            JOIN tallyman.datasets m USING (dataset, manifest_hash)
            JOIN pg_class t ON t.oid = to_regclass(format('%I.%I', r.physical_schema, r.physical_table))
            JOIN pg_class c ON c.oid = t.oid OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = t.oid) OR c.relkind = 'v' AND EXISTS (
                SELECT FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid
                WHERE d.refobjid = t.oid AND w.ev_class = c.oid
                  AND (c.relnamespace::regnamespace::text, c.relname) = (quote_ident(m.manifest->'table'->>'schema'), m.manifest->'table'->>'name'))
        LOOP
            EXECUTE statement;
        END LOOP;
    END IF;
END
$$;
