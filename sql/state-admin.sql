-- What an administrator runs so that walhook can keep its state with the least privileges.
-- walhook makes and migrates its tables itself; it needs a schema of its own, and nothing else.
-- Replace "walhook" in the role's place if walhook logs in as another role. Safe to run again.

-- 1. In the source database, or in the one that [state] url names:
CREATE SCHEMA IF NOT EXISTS walhook AUTHORIZATION walhook;

-- 2. Operators who look at the state in plain SQL (push log, dead letters, the views) get a role of
--    their own; nothing in these tables is a secret of walhook, but bodies hold row data:
--
--    GRANT USAGE ON SCHEMA walhook TO support;
--    GRANT SELECT ON ALL TABLES IN SCHEMA walhook TO support;
--    ALTER DEFAULT PRIVILEGES FOR ROLE walhook IN SCHEMA walhook GRANT SELECT ON TABLES TO support;

-- When the schema was once migrated by another role, walhook must get that role's rights, since the
-- owner alone can migrate the tables and add a day to the push log:
--
--    GRANT former_role TO walhook;
--
-- A separate database for the state ([state] url), with a role that owns it:
--
--    CREATE ROLE walhook_state LOGIN PASSWORD 'choose one';
--    CREATE DATABASE walhook_state OWNER walhook_state ENCODING 'UTF8' TEMPLATE template0;
