//! A PostgreSQL that was tried and can be run: its binaries, version and user.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::sandbox::account::ServerAccount;
use crate::sandbox::command::run;

/// The oldest major version that walhook supports.
pub(crate) const OLDEST: u32 = 14;

/// `postgres --version` and `pg_config` answer in milliseconds; a cold disk may need longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Binaries of a server that answered `postgres --version` under the user that will run them.
#[derive(Clone, Debug)]
pub struct PostgresInstallation {
    bin: PathBuf,
    version: PostgresVersion,
    libraries: Vec<PathBuf>,
    account: ServerAccount,
    why: String,
}

impl PostgresInstallation {
    /// The highest version; the first one of equals.
    pub(super) fn best(found: impl IntoIterator<Item = Self>) -> Option<Self> {
        found.into_iter().reduce(|best, next| if next.rank() > best.rank() { next } else { best })
    }

    /// Tries the binaries in `bin` under each of `accounts`; `origin` says where they came from.
    ///
    /// # Errors
    /// Why they cannot be used, in a few words.
    pub(super) fn probe(
        bin: &Path,
        libraries: &[PathBuf],
        origin: &str,
        accounts: &[ServerAccount],
    ) -> Result<Self, String> {
        for program in ["initdb", "postgres"] {
            if !bin.join(program).is_file() {
                return Err(format!("there is no {program}"));
            }
        }
        let mut refusal = "no user can run it".to_owned();
        for account in accounts {
            let ask = |program: &str, argument: &str| {
                let mut command = account.command(bin.join(program));
                with_libraries(&mut command, libraries);
                run(command.arg(argument), ANSWER_LIMIT)
            };
            let answer = match ask("postgres", "--version") {
                Ok(answer) => answer,
                Err(error) => {
                    refusal = format!("as user {}: {}", account.name, error.in_one_line());
                    continue;
                }
            };
            let version = PostgresVersion::parse(&answer)
                .ok_or_else(|| format!("its version is not clear: {}", answer.trim()))?;
            if version.major < OLDEST {
                return Err(format!("{} is too old, {OLDEST} is the oldest", version.text));
            }
            let told = ask("pg_config", "--pkglibdir").ok().map(|dir| PathBuf::from(dir.trim()));
            if !plugin_dirs(bin, version.major, told).any(|dir| has_pgoutput(&dir)) {
                return Err("there is no pgoutput plugin".to_owned());
            }
            let why = format!("PostgreSQL {} from {} ({origin})", version.text, bin.display());
            return Ok(Self {
                bin: bin.to_owned(),
                version,
                libraries: libraries.to_vec(),
                account: account.clone(),
                why,
            });
        }
        Err(refusal)
    }

    /// The directory of `postgres` and `initdb`.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The major version, such as 15.
    pub fn major(&self) -> u32 {
        self.version.major
    }

    /// The whole version, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version.text
    }

    /// One line for people: which PostgreSQL, from where and why it.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The user that the server runs as.
    pub fn account(&self) -> &ServerAccount {
        &self.account
    }

    /// For choosing among several: a higher version is better.
    pub(super) fn rank(&self) -> (u32, u32) {
        (self.version.major, self.version.minor)
    }

    /// A command of this PostgreSQL under its user.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.account.command(self.bin.join(program));
        with_libraries(&mut command, &self.libraries);
        command
    }

    /// As [`Self::command`], for a program that is not part of PostgreSQL but starts one.
    pub(super) fn foreign_command(&self, program: &str) -> Command {
        let mut command = self.account.command(program);
        with_libraries(&mut command, &self.libraries);
        command
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct PostgresVersion {
    major: u32,
    minor: u32,
    text: String,
}

impl PostgresVersion {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `18beta1` and `19devel`.
    fn parse(answer: &str) -> Option<Self> {
        let text = answer.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
        let number = |part: &str| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        };
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some(Self {
            major: number(major)?,
            minor: number(minor).unwrap_or_default(),
            text: text.to_owned(),
        })
    }
}

/// Sets where the dynamic linker looks, for servers that were unpacked with their libraries.
fn with_libraries(command: &mut Command, libraries: &[PathBuf]) {
    if libraries.is_empty() {
        return;
    }
    let joined: OsString = env::join_paths(libraries).unwrap_or_default();
    command.env("LD_LIBRARY_PATH", joined);
}

/// Where packagers put the plugins: what `pg_config` says (`told`), or the known layouts.
fn plugin_dirs(bin: &Path, major: u32, told: Option<PathBuf>) -> impl Iterator<Item = PathBuf> {
    let prefix = bin.parent().unwrap_or(bin).to_owned();
    let layouts = [
        "lib".to_owned(),                    // Debian, RPMs of the PostgreSQL project, zonky
        "lib/postgresql".to_owned(),         // built from source, Homebrew, wheels, Arch
        format!("lib/postgresql@{major}"),   // Homebrew beside another version
        format!("../lib/postgresql{major}"), // Alpine: the binaries are in /usr/libexec
        "lib64".to_owned(),                  // Gentoo
        "lib64/pgsql".to_owned(),            // Fedora
        "lib64/postgresql".to_owned(),
        format!("lib/postgresql{major}/lib64"), // openSUSE
    ];
    told.into_iter().chain(layouts.into_iter().map(move |layout| prefix.join(layout)))
}

fn has_pgoutput(dir: &Path) -> bool {
    ["pgoutput.so", "pgoutput.dylib"].iter().any(|name| dir.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packagers_write_them() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18, "15.18"))),
            ("postgres (PostgreSQL) 18.6", Some((18, 6, "18.6"))),
            ("postgres (PostgreSQL) 19devel", Some((19, 0, "19devel"))),
            ("postgres (PostgreSQL) 18beta1", Some((18, 0, "18beta1"))),
            ("postgres (PostgreSQL) 9.6.24", Some((9, 6, "9.6.24"))),
            ("postgres (PostgreSQL) next", None),
            ("postgres (PostgreSQL) ", None),
            ("pg_ctl: cannot be run as root", None),
        ];
        for (answer, expected) in cases {
            let expected = expected.map(|(major, minor, text)| PostgresVersion {
                major,
                minor,
                text: text.to_owned(),
            });
            assert_eq!(PostgresVersion::parse(answer), expected, "case: {answer}");
        }
    }

    #[test]
    fn a_directory_without_a_server_is_refused() {
        // What `pg_config --bindir` names where only the client library is installed.
        let dir = tempfile::tempdir().unwrap();
        let refusal = PostgresInstallation::probe(dir.path(), &[], "test", &[]).unwrap_err();
        assert_eq!(refusal, "there is no initdb");
    }

    #[test]
    fn what_pg_config_says_about_plugins_comes_first() {
        let dirs: Vec<PathBuf> =
            plugin_dirs(Path::new("/usr/libexec/postgresql17"), 17, Some("/told".into())).collect();
        assert_eq!(dirs.first(), Some(&PathBuf::from("/told")));
        assert!(dirs.contains(&PathBuf::from("/usr/libexec/../lib/postgresql17")), "{dirs:?}");
    }
}
