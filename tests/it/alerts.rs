//! The alerts, judged by Prometheus' own tool: found, or unpacked privately from Debian's package.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::yaml;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
fn alerts_are_sound_and_do_what_their_tests_say() {
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(why) => {
            println!("SKIP alerts_are_sound_and_do_what_their_tests_say: needs promtool: {why}");
            return;
        }
    };
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let ran = Command::new(&promtool).args(args).current_dir(FOLDER).output().unwrap();
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert!(ran.status.success(), "{args:?}: {said}");
    }
}

/// Each alert names a screen of the page, and a command that there is.
#[tokio::test]
async fn each_alert_leads_to_a_screen_and_a_command() {
    const SCREENS: [&str; 5] = ["overview", "source", "endpoints", "letters", "events"];
    let text = std::fs::read_to_string(Path::new(FOLDER).join("alerts.yml")).unwrap();
    let files = yaml::documents(&text);
    let rules = files[0]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10, "{}", rules.len());
    for rule in rules {
        let (alert, told) = (&rule["alert"], &rule["annotations"]);
        let (page, command) = (told["page"].as_str().unwrap(), told["command"].as_str().unwrap());
        let screen = page.strip_prefix("#/").and_then(|rest| rest.split(['/', '?']).next());
        let is_known = screen.is_some_and(|screen| SCREENS.contains(&screen));
        assert!(is_known || page == "none: it does not answer", "{alert}: {page}");
        let Some(command) = command.strip_prefix("walhook ") else { continue };
        let command = command.replace("{{ $labels.endpoint }}", "crm") + " --help";
        let mut program = Program::start(&command.split(' ').collect::<Vec<_>>(), "", &[]);
        let code = program.wait(AMPLE).await;
        assert_eq!(code, Some(0), "{alert}: {command}: {}", program.output().join("\n"));
    }
}

fn promtool() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    if let Some(found) = places.into_iter().find(|place| place.is_file()) {
        return Ok(found);
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    let program = home.join("usr/bin/promtool");
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    // Without lists of its own apt has those of the system, or none.
    let fetch = "apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg-deb -x prometheus_*.deb .";
    let ran = Command::new("sh").args(["-c", fetch]).current_dir(&home).output();
    let ran = ran.map_err(|error| error.to_string())?;
    match ran.status.success() && program.is_file() {
        true => Ok(program),
        false => Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
    }
}
