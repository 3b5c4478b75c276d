//! What a role or a database has set as defaults changes nothing for walhook.

use super::event;
use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;
use crate::support::service::configuration;

#[tokio::test]
async fn defaults_of_the_role_and_schemas_that_shadow_change_nothing() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let role = format!("{}_role", database.name());
    sql.batch_execute(&format!(
        "CREATE TABLE o (id int PRIMARY KEY, v text, status text, at date, kind regclass);
         CREATE SCHEMA evil;
         CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'no' $$;
         CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
         CREATE FUNCTION evil.differs(text, text) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.differs);
         CREATE TABLE evil.pg_publication (pubname name, oid oid);
         CREATE TABLE evil.pg_class (relname name);
         CREATE TABLE audit (id int);
         CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END $$;
         CREATE TRIGGER noted AFTER UPDATE ON o FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE ROLE {role} LOGIN SUPERUSER;
         ALTER ROLE {role} SET search_path = evil, pg_catalog, public;
         ALTER ROLE {role} SET default_transaction_read_only = on;
         ALTER ROLE {role} SET statement_timeout = 1;
         ALTER ROLE {role} SET lock_timeout = 1;
         ALTER ROLE {role} SET idle_in_transaction_session_timeout = 1;
         ALTER ROLE {role} SET idle_session_timeout = 1000;
         DO $$ BEGIN IF current_setting('server_version_num')::int >= 170000 THEN
             EXECUTE 'ALTER ROLE {role} SET transaction_timeout = 50'; END IF; END $$;
         ALTER ROLE {role} SET default_transaction_isolation = serializable;
         ALTER ROLE {role} SET \"DateStyle\" = 'German';
         ALTER ROLE {role} SET standard_conforming_strings = off"
    ))
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    // The trigger of the table finds its own where the role looks.
    let written = "write_back = { column = \"status\", delivered = \"sent\", failed = \"failed\" }";
    let rest = event("o", written) + &super::webhook(&receiver.url());
    let toml = configuration(&database, &rest)
        .replace("postgres://postgres@", &format!("postgres://{role}@"));
    let (code, output) = super::ended("check", &toml).await;
    assert_eq!(code, Some(0), "{output}");
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO o VALUES (1, 'a', NULL, '2025-02-01', 'o')").await.unwrap();
    wait_for_text(&sql, "SELECT coalesce(max(status), '') FROM o", "sent").await;
    wait_for_text(&sql, "SELECT count(*) FROM audit", "1").await;
    let body = receiver.requests()[0].json();
    assert_eq!(body["data"]["at"], "2025-02-01", "{body}");
    assert_eq!(body["data"]["kind"], "public.o", "{body}");
    service.stop().await;
    drop(service);
    sql.batch_execute(&format!("DROP SCHEMA walhook CASCADE; DROP OWNED BY {role}")).await.unwrap();
}
