//! What the pages show to be typed: each `walhook` command is one that the program takes, and each piece of
//! configuration one that it reads. That commands do what is said is tried in `guide`.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Parser;
use walhook::Cli;
use walhook::testing::config;

/// What is to be filled in where a page shows `whsec_...`.
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The pages of both languages, but for what is made from the example.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_folder = |folder: &str| fs::read_dir(root.join(folder)).unwrap();
    let found = [".", "docs", "docs/zh"].into_iter().flat_map(in_folder);
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root).unwrap().display().to_string(), text)
    };
    found.into_iter().map(text).filter(|(name, _)| !name.ends_with("CHANGELOG.md")).collect()
}

/// The blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// A command up to where the shell goes on by itself, in words; quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '>' | '|' | '&' | ';' | '#') if word.is_none() => break,
            (None, ';') => break,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn each_command_of_the_pages_is_one_that_the_program_takes() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        let joined = blocks(&text, "sh").concat().replace("\\\n", " ");
        for line in joined.lines() {
            // Variables for the one command stand before it.
            let line = line.trim_start();
            let words = words(line);
            let words = words.iter().skip_while(|word| word.contains('=')).cloned();
            let words: Vec<String> = words.collect();
            if words.first().is_none_or(|word| word != "walhook") {
                continue;
            }
            seen += 1;
            // What is to be filled in.
            let filled = words.iter().map(|word| match word.as_str() {
                "N" => "7",
                "whsec_..." => SECRET,
                word => word,
            });
            if let Err(error) = Cli::try_parse_from(filled) {
                wrong.push(format!("{page}: {line}\n{error}"));
            }
        }
    }
    assert!(seen > 40, "{seen} commands were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A value that any key would take that asks for a secret; `[telemetry]` reads others.
fn env(name: &str) -> Option<String> {
    let is_quiet = name.starts_with("OTEL_") || name.starts_with("PG");
    let value = match name {
        "DATABASE_URL" => "postgres://walhook@localhost/app",
        name if name.ends_with("AGENT_ID") => "1000002",
        "WALHOOK_KEY" => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        name if name.ends_with("URL") => "https://a.example.com/",
        _ => "a-value-long-enough-for-all",
    };
    (!is_quiet).then(|| value.to_owned())
}

/// The piece, with what it lacks to be whole: it may be a few keys of a table that the prose names.
fn completed(piece: &str) -> Vec<String> {
    let event = "[[event]]\ntype = \"a\"\ntable = \"public.a\"\n";
    let endpoint = "[[endpoint]]\nname = \"a\"\nurl = \"https://h/\"\n";
    let webhook = "webhook.urls = [\"https://h/\"]\n";
    let trace = "[telemetry]\ntraceparent = true\n";
    vec![
        piece.to_owned(),
        format!("{webhook}{piece}"),
        format!("{webhook}{piece}{trace}"),
        format!("{webhook}{event}{piece}"),
        format!("{event}{endpoint}{piece}"),
        format!("{endpoint}[webhook]\n{piece}"),
        format!("[[endpoint]]\nname = \"a\"\n{piece}"),
    ]
}

/// What is wrong with a piece only because the rest is not shown.
fn is_of_an_excerpt(problem: &str) -> bool {
    ["cannot be read", "matches no event type"].iter().any(|part| problem.contains(part))
}

#[test]
fn each_piece_of_configuration_of_the_pages_is_read() {
    let (mut seen, mut wrong) = (0, Vec::new());
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/walhook.toml");
    for (page, text) in pages() {
        for piece in blocks(&text, "toml") {
            seen += 1;
            let read = |text: &String| match config::parse(text, file, &env) {
                Ok(_) => String::new(),
                Err(problems) => problems.to_string(),
            };
            let problems: Vec<String> =
                completed(&piece.replace("whsec_...", SECRET)).iter().map(read).collect();
            if !problems.iter().any(|problems| problems.lines().all(is_of_an_excerpt)) {
                wrong.push(format!("{page}:\n{piece}{}", problems.join("\n")));
            }
        }
    }
    assert!(seen > 15, "{seen} pieces were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let cases = [
        ("walhook check   # all", vec!["walhook", "check"]),
        ("walhook init --table a > b.sql", vec!["walhook", "init", "--table", "a"]),
        ("walhook try --row '{\"a b\": 1}'", vec!["walhook", "try", "--row", "{\"a b\": 1}"]),
        ("walhook a '' | less", vec!["walhook", "a", ""]),
    ];
    for (line, expected) in cases {
        assert_eq!(words(line), expected, "case: {line}");
    }
}
