//! What packages and probes ask of the program itself: health without a shell, completions, manual pages.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "what is skipped is said")]

use std::fs;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Exit code and everything that is printed.
async fn said(args: &[&str], toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(args, toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

/// The subcommands, as the help lists them.
async fn subcommands() -> Vec<String> {
    let (code, help) = said(&["--help"], "").await;
    assert_eq!(code, Some(0), "{help}");
    let names = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names = names.take_while(|line| line.starts_with(' '));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<String> = names.filter(|name| name != "help").collect();
    assert!(names.len() > 10 && names.contains(&String::from("push-log")), "{names:?}");
    names
}

#[tokio::test]
async fn health_is_asked_where_the_configuration_listens_and_the_exit_code_is_the_answer() {
    let database = Database::create().await;
    database.sql().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let rest = "[[event]]\ntype = \"t\"\ntable = \"public.t\"\n[endpoints]\n";
    let mut service = Service::start(&configuration(&database, rest)).await;
    let http = format!("[http]\nlisten = \"{}\"\n", service.http);
    // The database's URL is not there, as in a probe's environment it need not be.
    let (code, output) = said(&["health"], &http).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains(r#""status":"ok""#), "{output}");
    let (code, output) = said(&["health", "--ready"], &http).await;
    assert_eq!((code, output.as_str()), (Some(0), r#"{"status":"ready"}"#));
    service.stop().await;
    let (code, output) = said(&["health"], &http).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("no walhook answers"), "{output}");
    let (code, output) = said(&["health", "--url", "walhook:9464"], "").await;
    assert_eq!(code, Some(2), "{output}");
}

/// A server that takes the connection and says nothing is dead for a probe.
#[tokio::test]
async fn a_walhook_that_does_not_answer_is_not_healthy() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (code, output) = said(&["health", "--url", &url], "").await;
    assert_eq!(code, Some(1), "{output}");
}

#[tokio::test]
async fn completions_name_every_command_and_their_shells_understand_them() {
    let commands = subcommands().await;
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = said(&["completions", shell], "").await;
        assert_eq!(code, Some(0), "{shell}: {script}");
        for name in &commands {
            assert!(script.contains(name.as_str()), "{shell}: {name}");
        }
        let child = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            println!("SKIP the syntax of completions for {shell}: needs {shell}");
            continue;
        };
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).await.unwrap();
        drop(stdin);
        assert!(child.wait().await.unwrap().success(), "{shell}");
    }
}

#[tokio::test]
async fn every_command_has_a_manual_page_with_its_options_and_example() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("man1");
    let (code, output) = said(&["man", target.to_str().unwrap()], "").await;
    assert_eq!(code, Some(0), "{output}");
    let page = |name: &str| fs::read_to_string(target.join(name)).unwrap();
    for name in subcommands().await {
        let text = page(&format!("walhook-{name}.1"));
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
        assert!(text.contains(": walhook"), "{name}: {text}");
    }
    assert!(page("walhook.1").contains("Exit codes"), "{}", page("walhook.1"));
    assert!(page("walhook-run.1").contains("accept\\-gap"), "{}", page("walhook-run.1"));
    assert!(page("walhook-dead-letters-resend.1").contains("dry\\-run"));
}
