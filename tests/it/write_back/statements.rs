//! What a write-back's statement is made of: keys and values of any type, functions of the user's.

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

use super::taking;

/// Types of keys that an operator alone would read as something else, and some that it would not.
const KEYS: [(&str, &str); 9] = [
    ("address", "ROW('Main ''st'', \"1\"', 2)::address"),
    ("home", "ROW('a b', 3)::address::home"),
    ("address[]", "ARRAY[ROW('x,y', 1)::address, NULL]"),
    ("regclass", "'pg_catalog.pg_class'::regclass"),
    ("mood", "'new'"),
    ("int4range", "'[1,5)'"),
    ("char(6)", "'ab'"),
    ("bytea", "'\\x00ff'"),
    ("timestamptz", "'2026-01-02 03:04:05.123456+02'"),
];

/// A write-back of a statement over the table `t`.
fn by_statement(database: &Database, statement: &str) -> String {
    configuration(
        database,
        &format!(
            "[[event]]\ntype = \"t\"\ntable = \"public.t\"\non = [\"insert\"]\n\
             write_back = {{ sql = '''{statement}''', delivered = \"sent\", failed = \"lost\" }}\n\n\
             [webhook]\nurls = [\"http://127.0.0.1:9/\"]\n"
        ),
    )
}

async fn check(toml: &str) -> (Option<i32>, String) {
    let mut check = Program::start(&["check"], toml, &[]);
    (check.wait(AMPLE).await, check.output().join("\n"))
}

/// What `check` says is to be run, as it stands.
fn to_run(said: &str) -> Vec<&str> {
    let fixes = said.lines().filter_map(|line| line.trim().strip_prefix("run `"));
    fixes.filter_map(|rest| Some(rest.split_once('`')?.0)).collect()
}

#[tokio::test]
async fn a_row_is_found_by_a_key_of_any_type() {
    let (database, sql) = super::database().await;
    sql.batch_execute(
        "CREATE TYPE address AS (street text, no int);
         CREATE DOMAIN home AS address;
         CREATE TYPE mood AS ENUM ('new', 'old');",
    )
    .await
    .unwrap();
    let one = taking();
    let mut toml = String::new();
    for (n, (sql_type, _)) in KEYS.iter().enumerate() {
        let table =
            format!("CREATE TABLE k{n} (id {sql_type}, status text, other text, PRIMARY KEY (id))");
        sql.batch_execute(&table).await.unwrap();
        toml += &format!(
            "[[event]]\ntype = \"k{n}\"\ntable = \"public.k{n}\"\non = [\"insert\"]\n\
             write_back = {{ column = \"status\", delivered = \"sent\", failed = \"lost\" }}\n\n"
        );
    }
    toml += &format!("[webhook]\nurls = [\"{}\"]\n", one.url());
    let toml = configuration(&database, &toml);
    let mut service = Service::start(&toml).await;
    for (n, (_, value)) in KEYS.iter().enumerate() {
        sql.batch_execute(&format!("INSERT INTO k{n} VALUES ({value}, 'new')")).await.unwrap();
    }
    for n in 0..KEYS.len() {
        wait_for_text(&sql, &format!("SELECT status FROM k{n}"), "sent").await;
    }
    wait_for_text(&sql, super::LEFT, "0").await;
    service.stop().await;
    // Tried by `check` on the rows that are there now.
    let (code, said) = check(&toml).await;
    assert!(code == Some(0) && !said.contains("would be refused"), "{said}");
}

#[tokio::test]
async fn the_columns_own_type_may_be_one_that_has_no_text_of_its_own() {
    let (database, sql) = super::database().await;
    sql.batch_execute(
        "CREATE TYPE verdict AS (word text);
         CREATE TABLE t (id int PRIMARY KEY, status verdict)",
    )
    .await
    .unwrap();
    let one = taking();
    let rest = format!(
        "[[event]]\ntype = \"t\"\ntable = \"public.t\"\non = [\"insert\"]\n\
         write_back = {{ column = \"status\", delivered = \"(sent)\", failed = \"(lost)\" }}\n\n\
         [webhook]\nurls = [\"{}\"]\n",
        one.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    sql.batch_execute("INSERT INTO t VALUES (1, '(new)'), (2, NULL)").await.unwrap();
    wait_for_text(&sql, "SELECT string_agg(status::text, ' ') FROM t", "(sent) (sent)").await;
    service.stop().await;
}

#[tokio::test]
async fn a_place_that_takes_no_value_is_refused_before_there_is_one() {
    let (database, sql) = super::database().await;
    sql.batch_execute(
        "CREATE TYPE address AS (street text, no int);
         CREATE TABLE t (id address PRIMARY KEY, note text, status text)",
    )
    .await
    .unwrap();
    let update = "UPDATE t SET status = {{ outcome }} WHERE id = {{ id }}";
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &by_statement(&database, update), &[]);
        assert_eq!(program.wait(AMPLE).await, Some(3), "{:?}", program.output());
        let said = program.output().join("\n");
        assert!(said.contains("{{ id }} stands where a row of any type may"), "{said}");
        assert!(said.contains("cast it: {{ id }}::"), "{said}");
    }
    let (code, said) = check(&by_statement(&database, &(update.to_owned() + "::address"))).await;
    assert_eq!(code, Some(0), "{said}");
    let any = "SELECT format('%s', {{ id }}), {{ outcome }}::text";
    let (code, said) = check(&by_statement(&database, any)).await;
    assert!(code == Some(3) && said.contains("cast the place in `sql`"), "{said}");
    // What a value alone can show.
    let number = "UPDATE t SET status = {{ outcome }} WHERE note = ({{ note }}::int)::text";
    let number = by_statement(&database, number);
    let (code, said) = check(&number).await;
    assert!(code == Some(0) && !said.contains("would be refused"), "{said}");
    let insert = "INSERT INTO t VALUES ('(a,1)', '7'), ('(secret,2)', 'secret'), ('(c,3)', NULL)";
    sql.batch_execute(insert).await.unwrap();
    let (code, said) = check(&number).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("would be refused for 1 of 3 rows of public.t"), "{said}");
    assert!(said.contains("SQLSTATE 22P02") && !said.contains("secret"), "{said}");
}

/// What is refused for good stays named and counted, and can be given up.
#[tokio::test]
async fn a_value_that_is_never_taken_is_counted_until_it_is_given_up() {
    let (database, sql) = super::database().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY, note text, status text)").await.unwrap();
    let one = taking();
    let update =
        "UPDATE t SET status = {{ outcome }} WHERE id = {{ id }} AND {{ note }}::int IS NOT NULL";
    let toml = by_statement(&database, update).replace("http://127.0.0.1:9/", &one.url());
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1, 'no number'), (2, '7')").await.unwrap();
    wait_for_text(&sql, "SELECT status FROM t WHERE id = 2", "sent").await;
    service.wait_for_metric("walhook_write_backs_failing", 1.0).await;
    let kept = "SELECT count(*) FROM walhook.write_backs WHERE slot IS NOT NULL AND tries > 0
                   AND last_error LIKE '%SQLSTATE 22P02%'";
    wait_for_text(&sql, kept, "1").await;
    let status = service.get("/api/v1/status").await.json();
    assert!(status["problems"].to_string().contains("Rows are not told"), "{status}");
    sql.batch_execute("DELETE FROM walhook.write_backs WHERE tries > 0").await.unwrap();
    service.wait_for_metric("walhook_write_backs_failing", 0.0).await;
    service.stop().await;
}

/// A role that walhook may connect as and that may do nothing else yet.
async fn role(database: &Database, sql: &Sql) -> String {
    let role = database.name().to_owned();
    sql.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION;
         CREATE SCHEMA walhook AUTHORIZATION {role};
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         CREATE PUBLICATION walhook FOR TABLE t"
    ))
    .await
    .unwrap();
    role
}

async fn drop_role(sql: &Sql, role: &str) {
    sql.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn rights_that_are_missing_are_said_as_statements_to_run() {
    let (database, sql) = super::database().await;
    sql.batch_execute(
        "CREATE SCHEMA \"My app\";
         CREATE TABLE t (id int PRIMARY KEY, status text);
         CREATE TABLE \"My app\".\"Done\" (id int, status text);
         CREATE FUNCTION \"My app\".mark(id int, OUT ok bool, variadic words text[]) LANGUAGE sql
             AS 'SELECT true';
         CREATE FUNCTION \"My app\".mark(id int, word text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE PROCEDURE \"My app\".note(id int, word text) LANGUAGE sql AS 'SELECT 1';
         REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA \"My app\" FROM PUBLIC",
    )
    .await
    .unwrap();
    let role = role(&database, &sql).await;
    for statement in [
        "SELECT \"My app\".mark({{ id }}::int, {{ outcome }})",
        "CALL \"My app\".note({{ id }}, {{ outcome }})",
        "UPDATE \"My app\".\"Done\" SET status = {{ outcome }} WHERE id = {{ id }}",
        "INSERT INTO \"My app\".\"Done\" VALUES ({{ id }}, {{ outcome }})
         ON CONFLICT DO NOTHING RETURNING id",
        "DELETE FROM \"My app\".\"Done\" WHERE id = {{ id }} AND {{ outcome }} <> ''",
    ] {
        sql.batch_execute(&format!(
            "REVOKE ALL ON SCHEMA \"My app\" FROM {role};
             REVOKE ALL ON ALL TABLES IN SCHEMA \"My app\" FROM {role};
             REVOKE ALL ON ALL ROUTINES IN SCHEMA \"My app\" FROM {role}"
        ))
        .await
        .unwrap();
        let user = format!("postgres://{role}@");
        let toml = by_statement(&database, statement).replace("postgres://postgres@", &user);
        let (code, said) = check(&toml).await;
        assert_eq!(code, Some(3), "{statement}: {said}");
        let fixes = to_run(&said);
        assert_eq!(fixes.len(), 1, "{statement}: {said}");
        sql.batch_execute(&fixes.concat()).await.unwrap();
        let (code, said) = check(&toml).await;
        assert_eq!(code, Some(0), "{statement}: {said}");
    }
    drop_role(&sql, &role).await;
}

/// The function's owner is bound by FORCE ROW LEVEL SECURITY of his own table.
#[tokio::test]
async fn a_function_that_writes_a_table_whose_rows_are_hidden_is_named_before_and_when_it_runs() {
    let (database, sql) = super::database().await;
    let owner = format!("{}_owner", database.name());
    sql.batch_execute(&format!(
        "CREATE ROLE {owner};
         CREATE TABLE t (id int PRIMARY KEY);
         CREATE TABLE \"told.rows\" (id int, word text);
         ALTER TABLE \"told.rows\" OWNER TO {owner};
         ALTER TABLE \"told.rows\" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE FUNCTION mark(id int, word text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN INSERT INTO public.\"told.rows\" VALUES (id, word); END $$;
         ALTER FUNCTION mark OWNER TO {owner}"
    ))
    .await
    .unwrap();
    let one = taking();
    let mark = "SELECT mark({{ id }}, {{ outcome }})";
    let toml = by_statement(&database, mark).replace("http://127.0.0.1:9/", &one.url());
    let (code, said) = check(&toml).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("runs public.mark, which names public.\"told.rows\""), "{said}");
    let fix = format!("ALTER ROLE \"{owner}\" BYPASSRLS;");
    assert_eq!(to_run(&said), [fix.as_str()], "{said}");

    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    service.wait_for_metric("walhook_write_backs_failing", 1.0).await;
    service.program.wait_for_line("row-level security policy for table", AMPLE).await;
    let status = service.get("/api/v1/status").await.json();
    let problems = status["problems"].to_string();
    assert!(problems.contains("row-level security policy for table"), "{status}");
    sql.batch_execute(&fix).await.unwrap();
    wait_for_text(&sql, "SELECT string_agg(word, ',') FROM \"told.rows\"", "sent").await;
    service.wait_for_metric("walhook_write_backs_failing", 0.0).await;
    service.stop().await;
    let (code, said) = check(&toml).await;
    assert!(code == Some(0) && !said.contains("which names"), "{said}");
    sql.batch_execute(&format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")).await.unwrap();
}
