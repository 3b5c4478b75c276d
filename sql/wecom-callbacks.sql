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
ALTER TABLE public.wecom_messages
    -- Who sends it: the application (app) or the group robot (robot), to whom to_user says nothing.
    ADD COLUMN IF NOT EXISTS channel text NOT NULL DEFAULT 'app' CHECK (channel IN ('app', 'robot')),
    -- WeCom's own id, once it has taken the message.
    ADD COLUMN IF NOT EXISTS msgid text;
CREATE INDEX IF NOT EXISTS wecom_messages_msgid ON public.wecom_messages (msgid) WHERE msgid IS NOT NULL;

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

-- WeCom has taken a message, or has not: the write_back of config/wecom-callbacks.toml says so. Safe to
-- repeat. Users that were not reached have `failed` steps of their own, and the message is `sent`.
CREATE OR REPLACE FUNCTION public.wecom_message_ended(
    which text, outcome text, wecom_id text, code text, unreached text, reason text
) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    IF wecom_id IS NOT NULL THEN
        UPDATE public.wecom_messages SET msgid = wecom_id WHERE message_id = which;
        -- Callbacks that were quicker than this.
        UPDATE public.wecom_message_history SET message_id = which WHERE message_id = wecom_id;
    END IF;
    INSERT INTO public.wecom_message_history (message_id, state, user_id, detail)
    SELECT which, step.state, step.user_id, step.detail
      FROM (SELECT 0 AS place, outcome AS state, NULL AS user_id, jsonb_strip_nulls(jsonb_build_object(
                       'msgid', wecom_id, 'errcode', code, 'error', reason)) AS detail
            UNION ALL
            SELECT one.place, 'failed', one.user_id, '{"unreached": true}'
              FROM regexp_split_to_table(unreached, '[|]') WITH ORDINALITY AS one (user_id, place)
             WHERE outcome = 'sent' AND one.user_id <> '') AS step
     WHERE NOT EXISTS (SELECT FROM public.wecom_message_history AS known
                        WHERE known.message_id = which AND known.state = step.state
                          AND known.user_id IS NOT DISTINCT FROM step.user_id)
     ORDER BY step.place; -- ids are given in this order, whatever the plan
    RETURN 1;
END $$;

-- A callback of kind `status` is a step of its message, which it names by WeCom's id or the application's.
CREATE OR REPLACE FUNCTION public.wecom_status_steps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.wecom_message_history (message_id, state, user_id, at, detail)
    VALUES (coalesce((SELECT m.message_id FROM public.wecom_messages m
                       WHERE m.msgid = NEW.message_id LIMIT 1), NEW.message_id),
            -- In WeCom's words: success, failed: user block, failed: system failed; of many at once
            -- sendsuccess, sendfail, err(10001).
            CASE WHEN replace(lower(NEW.content), ' ', '') IN ('success', 'sendsuccess') THEN 'delivered'
                 WHEN replace(lower(NEW.content), ' ', '') ~ '^(failed|sendfail|err[(])' THEN 'failed'
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
WHERE state <> 'failed' OR NOT coalesce(detail ? 'unreached', false)
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
--    GRANT SELECT, UPDATE (msgid) ON public.wecom_messages TO walhook;
--    GRANT SELECT, INSERT, UPDATE (message_id) ON public.wecom_message_history TO walhook;
--    CREATE SCHEMA walhook AUTHORIZATION walhook;
--
-- 3. The publication:
--
--    CREATE PUBLICATION wecom_callbacks FOR TABLE public.wecom_callbacks, public.wecom_messages;
