-- wecom-callbacks: what comes in from WeCom (企业微信), what is sent through it, and what became of it.
-- Beside it stands config/wecom-callbacks.toml. Safe to run again.

-- Callbacks, one row each, whichever replica took them and however often they came.
CREATE TABLE IF NOT EXISTS public.wecom_callbacks (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The [[inbound.source]] that it came by.
    source      text        NOT NULL,
    -- message, status, interaction or system.
    kind        text        NOT NULL,
    -- In WeCom's word: text, click, change_contact.create_user, ...
    event       text        NOT NULL,
    message_id  text,
    user_id     text,
    agent_id    text,
    occurred_at timestamptz,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- What somebody wrote or pressed; of a status, the state.
    content     text,
    -- The whole message.
    fields      jsonb       NOT NULL,
    dedupe_key  text        NOT NULL UNIQUE
);

-- Nonces of the last days: none is taken twice, by no replica and after no restart.
CREATE TABLE IF NOT EXISTS public.inbound_nonces (
    source  text        NOT NULL,
    nonce   text        NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, nonce)
);
CREATE INDEX IF NOT EXISTS inbound_nonces_seen_at ON public.inbound_nonces (seen_at);

-- Messages to be sent: the application inserts a row.
CREATE TABLE IF NOT EXISTS public.wecom_messages (
    message_id text        PRIMARY KEY,
    to_user    text        NOT NULL,
    content    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What became of a message, a row a step: pending, sent, delivered, read, failed.
CREATE TABLE IF NOT EXISTS public.wecom_message_history (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text        NOT NULL,
    state      text        NOT NULL,
    user_id    text,
    at         timestamptz NOT NULL DEFAULT now(),
    detail     jsonb
);
CREATE INDEX IF NOT EXISTS wecom_message_history_message ON public.wecom_message_history (message_id, id);

-- A message begins as pending.
CREATE OR REPLACE FUNCTION public.wecom_message_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.wecom_message_history (message_id, state, at)
    VALUES (NEW.message_id, 'pending', NEW.created_at);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER wecom_message_begins AFTER INSERT ON public.wecom_messages
    FOR EACH ROW EXECUTE FUNCTION public.wecom_message_begins();

-- A callback of kind `status` is a step of its message.
CREATE OR REPLACE FUNCTION public.wecom_status_steps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.wecom_message_history (message_id, state, user_id, at, detail)
    VALUES (NEW.message_id,
            CASE WHEN NEW.content = 'success' THEN 'delivered'
                 WHEN NEW.content LIKE 'failed%' THEN 'failed'
                 ELSE lower(NEW.content) END,
            NEW.user_id, coalesce(NEW.occurred_at, NEW.received_at), NEW.fields);
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER wecom_status_steps AFTER INSERT ON public.wecom_callbacks
    FOR EACH ROW WHEN (NEW.kind = 'status' AND NEW.message_id IS NOT NULL AND NEW.content IS NOT NULL)
    EXECUTE FUNCTION public.wecom_status_steps();

-- Where a message stands. States only go forward: a late `sent` never hides a `read`.
CREATE OR REPLACE VIEW public.wecom_message_status AS
SELECT DISTINCT ON (message_id) message_id, state AS status, at AS updated_at
FROM public.wecom_message_history
ORDER BY message_id,
         array_position(ARRAY['pending', 'sent', 'failed', 'delivered', 'read'], state) DESC NULLS LAST,
         id DESC;

-- For the administrator, once for each server and database. `walhook check` says what is missing.
--
-- 1. Logical replication, followed by a restart of the server:
--
--    ALTER SYSTEM SET wal_level = logical;
--
-- 2. A role that may keep callbacks and read what is to be pushed; the schema is for walhook's own tables:
--
--    CREATE ROLE walhook LOGIN REPLICATION PASSWORD 'choose one';
--    GRANT CONNECT ON DATABASE app TO walhook;
--    GRANT USAGE ON SCHEMA public TO walhook;
--    GRANT SELECT, INSERT ON public.wecom_callbacks TO walhook;
--    GRANT SELECT, INSERT, DELETE ON public.inbound_nonces TO walhook;
--    GRANT SELECT ON public.wecom_messages TO walhook;
--    GRANT SELECT, INSERT ON public.wecom_message_history TO walhook;
--    CREATE SCHEMA walhook AUTHORIZATION walhook;
--
-- 3. The publication:
--
--    CREATE PUBLICATION wecom_callbacks FOR TABLE public.wecom_callbacks, public.wecom_messages;
