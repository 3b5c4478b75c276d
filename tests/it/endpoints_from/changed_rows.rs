//! Rows of the endpoints' table that are read alone, since the stream says that they have changed.

use std::collections::BTreeMap;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLES: &str = "
    CREATE TABLE tasks (id text PRIMARY KEY, rule_id bigint);
    CREATE TABLE hooks (id int PRIMARY KEY, name text, url text, rule_ids bigint[] DEFAULT '{7}');";

/// Names are a column of their own; `id`: whether the file says what tells rows apart.
async fn started(id: &str) -> (Database, Sql, Receiver, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rest = format!(
        "[[event]]\ntype = \"task\"\ntable = \"public.tasks\"\non = [\"insert\"]\n\n\
         [endpoints]\nallow = [\"127.0.0.1\"]\n\n\
         [endpoints_from]\ntable = \"public.hooks\"\n{id}match = {{ rule_id = \"rule_ids\" }}\n\n\
         [endpoints_from.endpoint]\nname = \"{{{{ name }}}}\"\nurl = \"{{{{ url }}}}\"\n"
    );
    let toml = configuration(&database, &rest);
    (database, sql, receiver, toml)
}

/// Tuples of the table that all sessions have read whole, once they have ended.
async fn read_whole(sql: &Sql) -> i64 {
    let tuples = "SELECT pg_stat_clear_snapshot()::text || seq_tup_read FROM pg_stat_user_tables
                   WHERE relname = 'hooks'";
    sql.text(tuples).await.parse().unwrap()
}

/// Runs walhook while the urls of so many rows change, one after the other, and gives what it has read whole.
async fn changed(sql: &Sql, receiver: &Receiver, toml: &str, rows: i32) -> i64 {
    let before = read_whole(sql).await;
    let mut service = Service::start(toml).await;
    let had = receiver.count();
    for id in 1..=rows {
        let url = format!("{}/{id}-{rows}", receiver.url());
        let change = format!("UPDATE hooks SET url = '{url}' WHERE id = {id}");
        sql.batch_execute(&change).await.unwrap();
        let task = format!("INSERT INTO tasks VALUES ('{rows}-{id}', {id})");
        sql.batch_execute(&task).await.unwrap();
    }
    let requests = receiver.wait_for(had + usize::try_from(rows).unwrap(), AMPLE).await;
    let mut paths: Vec<&str> = requests[had..].iter().map(|request| &*request.path).collect();
    paths.sort_unstable();
    let mut expected: Vec<String> = (1..=rows).map(|id| format!("/hooks/{id}-{rows}")).collect();
    expected.sort();
    assert_eq!(paths, expected);
    service.stop().await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'walhook%'
                       AND datname = current_database()";
    wait_for_text(sql, sessions, "0").await;
    read_whole(sql).await - before
}

#[tokio::test]
async fn a_change_of_one_row_reads_one_row() {
    let (_database, sql, receiver, toml) = started("id = \"id\"\n").await;
    let rows = format!(
        "INSERT INTO hooks SELECT n, 'h' || n, '{}', ARRAY[n] FROM generate_series(1, 3000) n; ANALYZE hooks",
        receiver.url()
    );
    sql.batch_execute(&rows).await.unwrap();
    let of_one = changed(&sql, &receiver, &toml, 1).await;
    assert!(of_one >= 6000, "at the start, and when the first change tells the key: {of_one}");
    let of_many = changed(&sql, &receiver, &toml, 12).await;
    assert!(of_many < of_one + 3000, "{of_many} for twelve changes, {of_one} for one");
}

/// Waits until the task has come so many times.
async fn taken(receiver: &Receiver, task: &str, count: usize) {
    loop {
        let had = receiver.count();
        let requests = receiver.requests();
        if requests.iter().filter(|request| request.json()["data"]["id"] == task).count() >= count {
            return;
        }
        receiver.wait_for(had + 1, AMPLE).await;
    }
}

/// A table that is changed at random, and who gets the tasks that are committed between the changes.
async fn followed(id: &str, seed: u64) {
    let (_database, sql, receiver, toml) = started(id).await;
    let marks = Receiver::start(always(Answer::status(200)));
    let toml = format!("{toml}\n[[endpoint]]\nname = \"all\"\nurl = \"{}\"\n", marks.url());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut service = Service::start(&toml).await;
    let (mut expected, mut tasks, mut steps) = (0, BTreeMap::new(), Vec::new());
    for step in 0..80 {
        let (row, other) = (random.i32(1..9), random.i32(1..9));
        let url = format!("{}/{row}-{step}", receiver.url());
        let statement = match random.u32(0..12) {
            0..4 => format!(
                "INSERT INTO hooks VALUES ({row}, 'n{row}', '{url}')
                     ON CONFLICT (id) DO UPDATE SET url = EXCLUDED.url"
            ),
            4 => format!("DELETE FROM hooks WHERE id = {row}"),
            5 => format!("UPDATE hooks SET name = 'n{other}' WHERE id = {row}"),
            6 => format!("UPDATE hooks SET name = 'free{step}' WHERE id = {row}"),
            7 => format!("UPDATE hooks SET id = {step} + 100 WHERE id = {row}"),
            8 => format!(
                "UPDATE hooks h SET name = o.name FROM hooks o
                  WHERE (h.id, o.id) IN (({row}, {other}), ({other}, {row}))"
            ),
            9 => format!("UPDATE hooks SET url = 'nothing', name = 'bad{row}' WHERE id = {row}"),
            10 => format!("UPDATE hooks SET rule_ids = '{{8}}', url = '{url}' WHERE id = {row}"),
            _ => String::from(
                "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM hooks; TRUNCATE hooks;
                               INSERT INTO hooks SELECT * FROM kept; DROP TABLE kept; COMMIT",
            ),
        };
        sql.batch_execute(&statement).await.unwrap();
        steps.push(statement);
        // Of rows of one name one is the endpoint.
        let urls = "SELECT coalesce(string_agg(urls, ' '), '') FROM (
                        SELECT string_agg(url, '|') urls FROM hooks
                         WHERE 7 = ANY (rule_ids) AND url <> 'nothing' GROUP BY name) each";
        let names: Vec<String> =
            sql.text(urls).await.split_whitespace().map(str::to_owned).collect();
        let doubles = sql.text("SELECT count(*) - count(DISTINCT name) FROM hooks").await;
        sql.batch_execute(&format!("INSERT INTO tasks VALUES ('{step}', 7)")).await.unwrap();
        // Rows are read as they are by then: so one step after the other.
        marks.wait_for(step + 1, AMPLE).await;
        // With doubles any of the rows may be it, also one that takes no task.
        if doubles == "0" {
            expected += names.len();
            // What waits goes to the url that a row has when it is sent.
            taken(&receiver, &step.to_string(), names.len()).await;
            tasks.insert(step.to_string(), names);
        }
    }
    let last = format!("INSERT INTO hooks VALUES (0, 'last', '{}/last', '{{9}}')", receiver.url());
    sql.batch_execute(&last).await.unwrap();
    sql.batch_execute("INSERT INTO tasks VALUES ('end', 9)").await.unwrap();
    let last = "SELECT coalesce(sum(delivered), 0) FROM walhook.balance WHERE endpoint = 'last'";
    wait_for_text(&sql, last, "1").await;
    wait_for_text(&sql, super::OUT_OF_BALANCE, "").await;
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in receiver.requests() {
        let task = request.json()["data"]["id"].as_str().unwrap().to_owned();
        let url = format!("{}{}", receiver.url().trim_end_matches("/hooks"), request.path);
        arrived.entry(task).or_default().push(url);
    }
    assert!(expected > 60, "{expected}");
    for (task, mut urls) in tasks {
        let mut got = arrived.remove(&task).unwrap_or_default();
        got.sort();
        urls.sort();
        assert_eq!(got, urls, "task {task}, seed {seed}\n{}", steps.join("\n"));
    }
    service.stop().await;
}

#[tokio::test]
async fn rows_that_are_read_alone_come_to_what_the_table_says() {
    for seed in 0..2 {
        followed("id = \"id\"\n", seed).await;
        followed("", seed).await;
    }
}
