//! What each bad input is told, word for word.

use super::*;
use proptest::prelude::*;

/// Configurations, one a line, each followed by the indented problems it gets. The `webhook.urls`
/// of a sound configuration are added where the line has none.
const REFUSALS: &str = include_str!("refusals.txt");

/// What `text` is told, without the file's name.
fn told(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let problems = match parse(text, "walhook.toml", env) {
        Ok(_) => return String::new(),
        Err(problems) => problems.to_string(),
    };
    let lines = problems.lines().map(|line| line.strip_prefix("walhook.toml").unwrap_or(line));
    lines.fold(String::new(), |told, line| told + "    " + line + "\n")
}

#[test]
fn each_bad_input_is_told_what_is_wrong_and_what_to_do() {
    let mut seen = String::new();
    for line in REFUSALS.lines().filter(|line| !line.starts_with("    ")) {
        seen.push_str(line);
        seen.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let completed = line.contains("webhook.urls") || line.contains("webhook =");
        let sound = if completed { "" } else { SOUND };
        let problems = told(&format!("{line}\n{sound}"), &env);
        assert!(!problems.is_empty(), "nothing is wrong with {line}");
        assert!(!problems.contains("opensesame"), "a secret is shown: {problems}");
        seen.push_str(&problems);
    }
    let lines = seen.lines().zip(REFUSALS.lines());
    let wrong: Vec<_> = lines.filter(|(seen, expected)| seen != expected).collect();
    assert!(wrong.is_empty(), "seen, and expected: {wrong:#?}");
    assert_eq!(seen, REFUSALS);
}

#[test]
fn problems_of_many_places_come_at_once_and_in_the_order_of_the_file() {
    let text = "\
[http]
listen = 5

[webhook]
urls = [
  \"http://h/\",
  \"nonsense\",
]
time_out = \"10s\"

[[endpoint]]
name = \"a\"

[[endpoint]]
name = \"张三\"
url = \"http://h/\"
";
    let told = told(text, &|_| None);
    assert_eq!(
        told.lines().map(str::trim_start).collect::<Vec<_>>(),
        [
            ": postgres.url: is missing: give it, or set $DATABASE_URL",
            ":2: http.listen: must be a string, not a whole number",
            ":7: webhook.urls: is not a URL: write it like \"https://example.com/hooks\"",
            ":9: webhook.time_out: unknown key: did you mean `timeout`?",
            ":11: endpoint.url: is missing: give an http(s) address",
            ":15: endpoint.name: \"张三\" is not a name: give 1 to 64 letters, digits, _, - and .",
        ]
    );
}

#[test]
fn the_database_of_the_environment_is_checked_like_that_of_the_file() {
    let env =
        |name: &str| (name == "DATABASE_URL").then(|| "postgres://u:opensesame@/d".to_owned());
    assert_eq!(
        told(SOUND, &env).trim(),
        ": postgres.url: $DATABASE_URL names no host: write postgres://user@host/database, a \
         socket's folder as postgres:///database?host=/run/postgresql, or set $PGHOST"
    );
    let empty = |name: &str| (name == "DATABASE_URL").then(String::new);
    assert_eq!(
        told(SOUND, &empty).trim(),
        ": postgres.url: is missing: give it, or set $DATABASE_URL"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_of_its_own() {
    let problems = load(Path::new("/does/not/exist.toml"), &env).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/does/not/exist.toml: cannot be read (No such file or directory (os error 2)): \
         give its path with --config, or write one with `walhook init`"
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("latin1.toml");
    std::fs::write(&file, b"# caf\xE9").unwrap();
    assert!(load(&file, &env).unwrap_err().to_string().contains("valid UTF-8"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_but_never_panics(
        text in r#"(\[\[?(webhook|event|endpoint|http)\]\]?\n|(urls|url|name|type|table|on|secret|auth|headers|retry|timeout) ?= ?|"(http://h/|\$\{[A-Z:-]*\}?|[^"\n]*)"|[\[\]{}=,.\n]|[a-z0-9]+|\PC)*"#,
    ) {
        let _read = parse(&text, "walhook.toml", &env);
    }
}
