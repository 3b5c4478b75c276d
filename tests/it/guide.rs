//! The receivers' guide: each of its programs, as it stands there, takes what walhook sends and nothing else.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::exchange;
use crate::support::service::http_address;

const GUIDE: &str = include_str!("../../docs/receivers.md");
const GUIDE_ZH: &str = include_str!("../../docs/zh/receivers.md");
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How each program is run; `FILE` and `PORT` stand for those of the moment.
const PROGRAMS: [(&str, &str, &[&str]); 5] = [
    ("receiver.py", "python3", &["FILE"]),
    ("receiver.mjs", "node", &["FILE"]),
    // Built and then run: what `go run` starts would outlive it.
    ("receiver.go", "go", &["build", "-o", "OUT", "FILE"]),
    ("receiver.php", "php", &["-S", "127.0.0.1:PORT", "FILE"]),
    ("Receiver.java", "java", &["FILE"]),
];

/// The block of code that has this name.
fn block(guide: &str, name: &str) -> String {
    let mut blocks = guide.split("\n```").skip(1).step_by(2);
    let named = blocks.find_map(|block| {
        let (info, code) = block.split_once('\n').unwrap();
        (info.split(' ').nth(1) == Some(name)).then(|| format!("{code}\n"))
    });
    named.unwrap_or_else(|| panic!("the guide has no block {name}"))
}

struct Sample {
    name: &'static str,
    program: Program,
    address: SocketAddr,
    /// What it was built in.
    _folder: TempDir,
}

/// A program of the guide that listens; `None`, said aloud, where its language is not installed.
async fn started(
    (name, language, args): (&'static str, &str, &[&str]),
    code: &str,
) -> Option<Sample> {
    let known = std::process::Command::new(language).arg("--help").output();
    if known.is_err() {
        println!("SKIP {name}: needs {language}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, code).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let out = folder.path().join("receiver");
    let mut command = Command::new(language);
    for arg in args {
        let arg = arg.replace("FILE", file.to_str().unwrap()).replace("OUT", out.to_str().unwrap());
        command.arg(arg.replace("PORT", &port.to_string()));
    }
    if args.first() == Some(&"build") {
        // Where it may, and for the next time as well.
        command.env("GOCACHE", cache().join("go")).env("GO111MODULE", "off");
        let built = command.output().await.unwrap();
        assert!(built.status.success(), "{name}: {}", String::from_utf8_lossy(&built.stderr));
        command = Command::new(out);
    }
    // PHP marks what it has seen in a file.
    command.env("SECRET", SECRET).env("PORT", port.to_string()).env("TMPDIR", folder.path());
    listening(name, command, port, folder).await
}

fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

async fn listening(
    name: &'static str,
    command: Command,
    port: u16,
    folder: TempDir,
) -> Option<Sample> {
    let mut program = Program::spawn(command, tempfile::tempdir().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + AMPLE;
    while TcpStream::connect(address).await.is_err() {
        let is_late = program.has_ended() || Instant::now() > deadline;
        assert!(!is_late, "{name}: {}", program.output().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Some(Sample { name, program, address, _folder: folder })
}

impl Sample {
    /// Ids that it has accepted, in the order in which it said so.
    fn accepted(&self) -> Vec<String> {
        let lines = self.program.output();
        let words = lines.iter().filter_map(|line| line.split_once("accepted "));
        words.map(|(_, rest)| rest.split(' ').next().unwrap().to_owned()).collect()
    }
}

/// The Rust one is an example of this crate, since it has dependencies.
#[test]
fn the_rust_receiver_is_the_one_that_is_built_here() {
    let built = include_str!("../../examples/receiver.rs");
    let built: Vec<&str> =
        built.lines().skip_while(|line| line.starts_with("#!") || line.is_empty()).collect();
    for guide in [GUIDE, GUIDE_ZH] {
        let shown = block(guide, "receiver.rs");
        // Comments speak the language of the page.
        let code = |lines: &[&str]| -> Vec<String> {
            let line = |line: &&str| line.split("//").next().unwrap().trim_end().to_owned();
            lines.iter().map(line).filter(|line| !line.is_empty()).collect()
        };
        assert_eq!(code(&shown.lines().collect::<Vec<_>>()), code(&built));
    }
}

/// What is said in two languages is the same code.
#[test]
fn the_chinese_guide_shows_the_same_programs() {
    for (name, ..) in PROGRAMS {
        let code = |guide: &str| -> Vec<String> {
            let mark =
                |line: &str| line.find("// ").or_else(|| line.find("# ")).unwrap_or(line.len());
            let text = block(guide, name);
            let lines = text.lines().map(|line| line.split_at(mark(line)).0.trim_end().to_owned());
            lines.filter(|line| !line.is_empty()).collect()
        };
        assert_eq!(code(GUIDE), code(GUIDE_ZH), "{name}");
    }
}

#[tokio::test]
async fn every_receiver_takes_events_and_batches_once_and_nothing_that_is_forged() {
    let mut samples = Vec::new();
    for program in PROGRAMS {
        samples.extend(started(program, &block(GUIDE, program.0)).await);
    }
    let example = PathBuf::from(env!("CARGO_BIN_EXE_walhook")).with_file_name("examples/receiver");
    if example.exists() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(example);
        command.env("SECRET", SECRET).env("PORT", port.to_string());
        samples.extend(listening("receiver.rs", command, port, tempfile::tempdir().unwrap()).await);
    } else {
        println!("SKIP receiver.rs: needs `cargo build --example receiver`");
    }

    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY, item text)").await.unwrap();
    let mut rest = String::from(
        "[[event]]\ntype = \"orders.created\"\ntable = \"public.orders\"\non = [\"insert\"]\n",
    );
    for (number, sample) in samples.iter().enumerate() {
        for (kind, size) in [("single", 1), ("batch", 3)] {
            rest.push_str(&format!(
                "[[endpoint]]\nname = \"{kind}-{number}\"\nurl = \"http://{}/{kind}\"\nsecret = \"{SECRET}\"\n\
                 batch = {{ size = {size}, linger = \"50ms\" }}\n",
                sample.address
            ));
        }
    }
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let rows = "INSERT INTO orders SELECT n, '茶 \"' || n FROM generate_series(9007199254740993, 9007199254741002) n";
    sql.batch_execute(rows).await.unwrap();
    // Every event goes to each of them twice: by itself and in a batch.
    let delivered = format!(
        "SELECT coalesce(sum(delivered), 0) = {} AND coalesce(sum(dead), 0) = 0 FROM walhook.balance",
        samples.len() * 20
    );
    wait_for_text(&sql, &delivered, "t").await;
    for sample in &mut samples {
        let last = |sample: &Sample| sample.accepted().len() >= 10;
        let deadline = Instant::now() + AMPLE;
        while !last(sample) {
            assert!(Instant::now() < deadline, "{}: {:?}", sample.name, sample.program.output());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let accepted = sample.accepted();
        let once: BTreeSet<&String> = accepted.iter().collect();
        assert_eq!(
            (accepted.len(), once.len()),
            (10, 10),
            "{}: each once: {accepted:?}",
            sample.name
        );
        assert!(once.iter().all(|id| id.starts_with("evt_")), "{}: {accepted:?}", sample.name);
        let forged =
            exchange(sample.address, "POST", "/single", None, "{\"type\":\"x\"}").await.unwrap();
        assert_eq!(forged.status.as_u16(), 401, "{}: {forged:?}", sample.name);
        assert_eq!(sample.accepted().len(), 10, "{}", sample.name);
    }
    service.stop().await;
}

const SYSTEMS: &str = include_str!("../../docs/systems.md");
const SYSTEMS_ZH: &str = include_str!("../../docs/zh/systems.md");

/// The names of the five systems.
const NAMES: [&str; 5] =
    ["ocr-wallet", "customer-events", "idp-push", "wechat-messages", "wecom-callbacks"];

/// The block of this language for a system, if there is one.
fn step(page: &str, language: &str, system: &str) -> Option<String> {
    let start = format!("\n```{language} {system}\n");
    let (_, rest) = page.split_once(&start)?;
    Some(rest.split("\n```").next().unwrap().to_owned())
}

/// Whether a body is the one that is shown; `…` stands for whatever is there.
fn is_as_shown(shown: &Value, found: &Value) -> bool {
    match (shown, found) {
        (Value::String(text), _) if text == "…" => !found.is_null(),
        (Value::Object(shown), Value::Object(found)) => {
            let same = |(name, value): (&String, &Value)| {
                found.get(name).is_some_and(|found| is_as_shown(value, found))
            };
            shown.len() == found.len() && shown.iter().all(same)
        }
        _ => shown == found,
    }
}

/// What `export` and `echo ... >` of the commands leave behind.
fn environment(commands: &str, here: &dyn Fn(&str) -> String) -> Vec<(String, String)> {
    let exports = commands.lines().filter_map(|line| line.strip_prefix("export "));
    let words = exports.flat_map(|line| line.split(" # ").next().unwrap().split_whitespace());
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), here(value))).collect()
}

/// From an empty database to the request that arrives, by the commands and statements of the page.
async fn walk_through(name: &str) {
    let cluster = start_cluster(ClusterOptions::default()).await;
    Sql::connect(&cluster.url("postgres"))
        .await
        .batch_execute("CREATE DATABASE app")
        .await
        .unwrap();
    let sql = Sql::connect(&cluster.url("app")).await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let files = tempfile::tempdir().unwrap();
    let address = receiver.url();
    let address = address.trim_end_matches('/');
    let here = |text: &str| {
        text.replace("http://127.0.0.1:9999", address)
            .replace("127.0.0.1:8080", "127.0.0.1:0")
            .replace("/tmp/", &format!("{}/", files.path().display()))
    };
    let commands = step(SYSTEMS, "sh", name).unwrap();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    assert!(commands.contains(&format!("psql \"$DATABASE_URL\" -f sql/{name}.sql")), "{commands}");
    let script = fs::read_to_string(root.join(format!("sql/{name}.sql"))).unwrap();
    sql.batch_execute(&script).await.unwrap();
    for line in commands.lines().filter_map(|line| line.strip_prefix("echo '")) {
        let (text, file) = line.split_once("' > ").unwrap();
        fs::write(here(file), here(text)).unwrap();
    }
    let mut env = environment(&commands, &here);
    env.push((String::from("DATABASE_URL"), cluster.url("app")));
    let env: Vec<(&str, &str)> = env.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let toml = fs::read_to_string(root.join(format!("config/{name}.toml"))).unwrap();
    let added = step(SYSTEMS, "toml", name).unwrap_or_default();
    let toml = format!("{toml}\n{added}\n[http]\nlisten = \"127.0.0.1:0\"\n");
    for command in ["check", "run"] {
        assert!(commands.contains(&format!("walhook {command} --config config/{name}.toml")));
    }
    let mut check = Program::start(&["check"], &toml, &env);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{name}: {}", check.output().join("\n"));
    let mut run = Program::start(&["run"], &toml, &env);
    let running = run.wait_for_line("walhook is running", AMPLE).await;
    for line in step(SYSTEMS, "curl", name).unwrap_or_default().lines() {
        let path = line.split("127.0.0.1:9464").nth(1).unwrap().split(' ').next().unwrap();
        let body = line.split("-d '").nth(1).unwrap().trim_end_matches('\'');
        let made = exchange(http_address(&running), "POST", path, None, &here(body)).await;
        assert!(made.as_ref().unwrap().status.is_success(), "{name}: {made:?}");
    }
    // One by one, as psql sends them: each is a transaction, unless they say otherwise.
    for statement in here(&step(SYSTEMS, "sql", name).unwrap()).split(";\n") {
        sql.batch_execute(statement).await.unwrap();
    }
    let found = receiver.wait_for(1, AMPLE).await.remove(0).json();
    let shown: Value = serde_json::from_str(&step(SYSTEMS, "json", name).unwrap()).unwrap();
    assert!(is_as_shown(&shown, &found), "{name}: {found:#} is not {shown:#}");
    if name == "idp-push" {
        wait_for_text(&sql, "SELECT status FROM tasks", "PUSH_SUCCESS").await;
    }
    run.terminate();
    assert_eq!(run.wait(AMPLE).await, Some(0), "{name}: {}", run.output().join("\n"));
    assert_eq!(receiver.count(), 1, "{name}: what is not to be pushed is not");
}

#[tokio::test]
async fn each_of_the_five_systems_runs_as_its_tutorial_says() {
    for name in NAMES {
        walk_through(name).await;
    }
}

#[test]
fn the_chinese_tutorials_have_the_same_steps() {
    for name in NAMES {
        for language in ["sh", "curl", "sql", "json", "toml"] {
            let steps = [SYSTEMS, SYSTEMS_ZH].map(|page| {
                let text = step(page, language, name).unwrap_or_default();
                let lines = text
                    .lines()
                    .map(|line| line.split(" # ").next().unwrap().trim_end().to_owned());
                lines.collect::<Vec<_>>()
            });
            assert_eq!(steps[0], steps[1], "{name}: {language}");
        }
    }
}

/// What the README and the first page show of SQL and TOML is what `init` and the program take.
#[tokio::test]
async fn the_first_five_minutes_go_as_they_are_written() {
    const START: &str = include_str!("../../docs/start.md");
    let cluster = start_cluster(ClusterOptions::default()).await;
    let admin = Sql::connect(&cluster.url("postgres")).await;
    admin.batch_execute("CREATE DATABASE app").await.unwrap();
    admin.batch_execute("CREATE ROLE walhook LOGIN REPLICATION PASSWORD 'secret'").await.unwrap();
    let sql = Sql::connect(&cluster.url("app")).await;
    let table =
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text)";
    sql.batch_execute(table).await.unwrap();
    let url = format!("postgres://walhook:secret@127.0.0.1:{}/app", cluster.port());
    // 3: init writes a file and prints what the page shows, but for what this server has already.
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_walhook"));
    command.args(["init", "--table", "public.orders"]).env("DATABASE_URL", &url);
    command.current_dir(folder.path()).env_remove("WALHOOK_CONFIG");
    let output = command.output().await.unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
    let shown = START.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    for line in shown.lines().skip(1) {
        let statement = line.split(';').next().unwrap();
        assert!(script.contains(statement), "{statement} is not in {script}");
    }
    sql.batch_execute(&script).await.unwrap();
    // 4: the receiver that comes along says that the signature fits.
    let toml = fs::read_to_string(folder.path().join("walhook.toml")).unwrap();
    let secret = toml.lines().find_map(|line| line.strip_prefix("secret = \"")).unwrap();
    let secret = secret.trim_end_matches('"');
    let mut receive =
        Program::start(&["receive", "--listen", "127.0.0.1:0", "--secret", secret], "", &[]);
    let line = receive.wait_for_line("127.0.0.1:", AMPLE).await;
    let port: String =
        line.split("127.0.0.1:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    assert!(toml.contains("http://127.0.0.1:9999/"), "{toml}");
    let toml = toml.replace("127.0.0.1:9999", &format!("127.0.0.1:{port}"));
    let own = "listen = \"127.0.0.1:0\"";
    let toml: Vec<&str> =
        toml.lines().map(|line| if line.starts_with("listen = ") { own } else { line }).collect();
    let toml = toml.join("\n");
    assert!(toml.contains(own), "{toml}");
    let env = [("DATABASE_URL", url.as_str())];
    let mut check = Program::start(&["check"], &toml, &env);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{}", check.output().join("\n"));
    let mut run = Program::start(&["run"], &toml, &env);
    run.wait_for_line("walhook is running", AMPLE).await;
    // 5: the row arrives.
    let insert = START.split("-c \"").nth(1).unwrap().split('"').next().unwrap();
    sql.batch_execute(insert).await.unwrap();
    receive.wait_for_line("signature ok", AMPLE).await;
    receive.wait_for_line("\"item\": \"tea\"", AMPLE).await;
    run.terminate();
    assert_eq!(run.wait(AMPLE).await, Some(0));
}
