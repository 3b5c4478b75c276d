//! What the documentation is held to: links and headings that there are, a table of contents that leaves nothing
//! out, and pages that say what the code says.
//!
//! `docs/configuration.md` is made from `config/walhook.example.toml`, which is compared with the keys that are asked
//! for: `WALHOOK_WRITE_DOCS=1 cargo test --test docs` writes it.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|given| given == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Everything that a reader may open.
fn pages() -> Vec<PathBuf> {
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let top = top.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    top.chain(files(&root().join("docs"), "md")).collect()
}

/// Lines that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The anchor that a heading gets, on the site and where the sources are shown.
fn anchor(heading: &str) -> String {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let heading: String = heading.trim().to_lowercase().chars().filter(|c| kept(*c)).collect();
    heading.replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// What stands in `](...)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let outside: Vec<String> =
        prose(text).map(|line| line.split('`').step_by(2).collect::<Vec<_>>().join("``")).collect();
    let text = outside.join("\n");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// Whether a path, with `..` in it, leads into a folder.
fn is_below(path: &Path, folder: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| folder.join("missing"));
    whole(path).starts_with(whole(folder))
}

#[test]
fn each_link_leads_to_a_file_and_a_heading_that_there_are() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let shown = page.strip_prefix(root()).unwrap().display();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let docs = root().join("docs");
            if page.starts_with(&docs) && !is_below(&target, &docs) {
                wrong.push(format!("{shown}: {link}: it is not on the site"));
            } else if !target.exists() {
                wrong.push(format!("{shown}: {link}: there is no such file"));
            } else if !heading.is_empty() {
                let headings = anchors(&fs::read_to_string(&target).unwrap());
                if !headings.contains(heading) {
                    wrong.push(format!("{shown}: {link}: there is no such heading"));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} links were looked at");
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let mut listed: Vec<String> = links(&read("docs/SUMMARY.md"));
    let docs = root().join("docs");
    let there = files(&docs, "md");
    let mut there: Vec<String> = there
        .iter()
        .map(|page| page.strip_prefix(&docs).unwrap().display().to_string())
        .filter(|page| page != "SUMMARY.md")
        .collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
}

/// What a function of `src` can give: the texts behind `=> "`.
fn given(path: &str) -> BTreeSet<String> {
    let text = read(path);
    let texts = text.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    texts.map(str::to_owned).collect()
}

#[test]
fn each_error_has_its_section_with_cause_and_mend() {
    let page = read("docs/errors.md");
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for path in [
        "src/replication/diagnostic_id.rs",
        "src/store/error_id.rs",
        "src/flow/verdict.rs",
        "src/telemetry/obstacles.rs",
    ] {
        let ids = given(path);
        assert!(ids.len() > 2, "{path}: {ids:?}");
        expected.extend(ids);
    }
    let between = |path: &str, from: &str, to: &str| {
        let text = read(path);
        let part = text.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
        let words = part.split('"').skip(1).step_by(2).map(str::to_owned);
        words.collect::<BTreeSet<String>>()
    };
    expected.extend(between("src/store/dead_letters.rs", "NAMES: [&str; 14] = [", "];"));
    let inbound = read("src/inbound/refusal.rs");
    let names = inbound.split_once("fn name").or_else(|| inbound.split_once("fn as_str"));
    let names = names.unwrap().1.split_once("\n    }\n").unwrap().0;
    expected.extend(names.split('"').skip(1).step_by(2).map(str::to_owned));
    expected.extend(["token", "host", "origin", "connections", "slow"].map(str::to_owned));

    let sections: Vec<&str> = page.split("\n### `").skip(1).collect();
    let mut found = BTreeSet::new();
    for section in &sections {
        let (id, rest) = section.split_once('`').unwrap();
        let text = rest.split("\n## ").next().unwrap().trim();
        assert!(text.len() > 5, "{id} is not explained");
        assert!(found.insert(id.to_owned()), "{id} is there twice");
    }
    let lacking: Vec<_> = expected.difference(&found).collect();
    assert!(lacking.is_empty(), "docs/errors.md lacks {lacking:?}");
    let gone: Vec<_> = found.difference(&expected).collect();
    assert!(gone.is_empty(), "nothing gives these any more: {gone:?}");
}

/// Compares a page with what it has to be, or writes it.
fn hold(path: &str, expected: &str) {
    if std::env::var_os("WALHOOK_WRITE_DOCS").is_some() {
        fs::write(root().join(path), expected).unwrap();
    }
    let is_same = read(path) == expected;
    assert!(is_same, "{path} is behind: WALHOOK_WRITE_DOCS=1 cargo test --test docs");
}

#[test]
fn each_alert_is_in_the_guide_and_the_chart_has_the_same() {
    let (alerts, guide) = (read("deploy/prometheus/alerts.yml"), read("docs/troubleshooting.md"));
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let lacking: Vec<&str> = names.filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert!(lacking.is_empty(), "docs/troubleshooting.md lacks {lacking:?}");
    hold("deploy/helm/walhook/alerts.yml", &alerts);
}

/// A section of the configuration: its header, what stands before it, and its keys.
struct Section {
    title: String,
    intro: Vec<String>,
    keys: Vec<(String, bool, String)>,
}

/// The sections of the commented reference, and what stands before the first.
fn sections(reference: &str) -> (Vec<String>, Vec<Section>) {
    let (mut head, mut found, mut said) = (Vec::new(), Vec::<Section>::new(), Vec::new());
    for line in reference.lines() {
        let (line, is_default) = match line.strip_prefix('#') {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
                said.push(rest.strip_prefix(' ').unwrap_or_default().to_owned());
                continue;
            }
            Some(rest) => (rest, false),
            None => (line, true),
        };
        if line.is_empty() {
            // Later a blank line is between paragraphs about what follows.
            if found.is_empty() {
                head.append(&mut said);
            }
        } else if line.starts_with('[') {
            found.push(Section {
                title: line.to_owned(),
                intro: std::mem::take(&mut said),
                keys: Vec::new(),
            });
        } else if let Some(section) = found.last_mut() {
            let text = std::mem::take(&mut said).join(" ");
            section.keys.push((line.to_owned(), is_default, text));
        }
    }
    (head, found)
}

/// Prose of a comment, in which `<` begins no HTML outside of code.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts
        .map(|(at, part)| if at % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

#[test]
fn the_configuration_reference_says_what_the_example_says() {
    let (head, sections) = sections(&read("config/walhook.example.toml"));
    let mut page = String::from(
        "# Every key of walhook.toml\n\nMade from `config/walhook.example.toml`, which a test compares with the keys that walhook asks for. \
         *Default* is what holds without the key; the others show an example and have no default.\n\n```text\n",
    );
    page.extend(head.iter().map(|line| format!("{line}\n")));
    page.push_str("```\n");
    let mut titles: Vec<String> = Vec::new();
    for section in sections {
        let name = section.keys.first().and_then(|(key, _, _)| key.split('"').nth(1));
        let title = match titles.contains(&section.title) {
            true => format!("`{}`: {}", section.title, name.unwrap_or("another one")),
            false => format!("`{}`", section.title),
        };
        titles.push(section.title.clone());
        page.push_str(&format!("\n## {title}\n\n"));
        if !section.intro.is_empty() {
            page.push_str(&format!("{}\n\n", plain(&section.intro.join(" "))));
        }
        for (key, is_default, text) in section.keys {
            let text = plain(&text);
            let default = if is_default { " *(default)*" } else { "" };
            let colon = if text.is_empty() { "" } else { ": " };
            page.push_str(&format!("- `{key}`{default}{colon}{text}\n"));
        }
    }
    hold("docs/configuration.md", &page);
}

#[test]
fn each_variable_of_the_environment_is_explained() {
    let page = read("docs/environment.md");
    let mut asked = BTreeSet::new();
    for file in files(&root().join("src"), "rs") {
        let shown = file.display().to_string();
        if shown.contains("/tests") || shown.ends_with("_tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        // Prose names variables of the reader's own configuration.
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for word in lines.flat_map(|line| line.split('"').skip(1).step_by(2)) {
            let is_name = |word: &str| {
                word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') && word.len() > 3
            };
            if is_name(word) && (word.starts_with("WALHOOK_") || word == "DATABASE_URL") {
                asked.insert(word.to_owned());
            }
        }
    }
    assert!(asked.len() > 4, "{asked:?}");
    let lacking: Vec<_> =
        asked.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(lacking.is_empty(), "docs/environment.md lacks {lacking:?}");
}

#[test]
fn links_headings_and_variables_are_read_as_people_read_them() {
    assert_eq!(anchor(" When a gap is reported"), "when-a-gap-is-reported");
    assert_eq!(anchor("`[http]`: who, and how?"), "http-who-and-how");
    assert_eq!(anchor("五分钟上手"), "五分钟上手");
    let text = "[a](b.md#c) `[no](x)`\n```\n[no](y)\n# no\n```\n[d](e.md)\n# Yes";
    assert_eq!(links(text), ["b.md#c", "e.md"]);
    assert_eq!(anchors(text), BTreeSet::from([String::from("yes")]));
}
