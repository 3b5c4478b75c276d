-- idp-push: the table whose completed tasks are pushed, the webhooks of their rules, and what an
-- administrator grants.
-- Beside it stands config/idp-push.toml. Safe to run again.

CREATE TABLE IF NOT EXISTS public.tasks (
    -- Such as T_20251214_0001.
    id         text        PRIMARY KEY,
    rule_id    bigint      NOT NULL,
    -- COMPLETED raises the push; walhook makes PUSH_SUCCESS or push_failed of it.
    status     text        NOT NULL DEFAULT 'PENDING',
    result     jsonb,
    file_url   text,
    meta       jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Whether a status has just become COMPLETED can only be told from the row as it was. It also keeps
-- a large `result` whole in updates that do not touch it.
ALTER TABLE public.tasks REPLICA IDENTITY FULL;

CREATE TABLE IF NOT EXISTS public.webhooks (
    -- Such as WH_001: letters, digits, _, - and .
    id      text    PRIMARY KEY,
    url     text    NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    -- {"basic": {"username": "...", "password": "..."}}, {"bearer": "..."} or
    -- {"api_key": {"name": "...", "value": "..."}}
    auth    jsonb
);

CREATE TABLE IF NOT EXISTS public.rule_webhooks (
    rule_id    bigint NOT NULL,
    webhook_id text   NOT NULL REFERENCES public.webhooks ON DELETE CASCADE,
    PRIMARY KEY (rule_id, webhook_id)
);

-- What walhook reads: each webhook with its rules.
CREATE OR REPLACE VIEW public.webhooks_with_rules AS
    SELECT w.id, w.url, w.enabled, w.auth,
           array(SELECT r.rule_id FROM public.rule_webhooks r WHERE r.webhook_id = w.id) AS rules
      FROM public.webhooks w;

-- For the administrator, once for each server and database. `walhook check` says what is missing.
--
-- 1. Logical replication, followed by a restart of the server:
--
--    ALTER SYSTEM SET wal_level = logical;
--
-- 2. A role that may read the change stream, the tasks and the webhooks, and write the status; the
--    schema is for walhook's own tables:
--
--    CREATE ROLE walhook LOGIN REPLICATION PASSWORD 'choose one';
--    GRANT CONNECT ON DATABASE app TO walhook;
--    GRANT USAGE ON SCHEMA public TO walhook;
--    GRANT SELECT, UPDATE (status) ON public.tasks TO walhook;
--    GRANT SELECT ON public.webhooks, public.rule_webhooks, public.webhooks_with_rules TO walhook;
--    CREATE SCHEMA walhook AUTHORIZATION walhook;
--
-- 3. The publication, which names what is streamed (walhook makes it where it may, as the owner of
--    the tables with CREATE on the database):
--
--    CREATE PUBLICATION idp_push FOR TABLE public.tasks, public.webhooks, public.rule_webhooks;
--
-- 4. The slot. walhook makes it at its first start, after the publication. Rows from before are not
--    pushed. When walhook is removed for good, drop the slot, or the server keeps its WAL for ever:
--
--    SELECT pg_drop_replication_slot('idp_push');
