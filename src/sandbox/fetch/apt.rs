//! Debian and Ubuntu: the server's packages, unpacked into the cache by any user.
//!
//! `apt-get` works on lists and a status file of ours, so that it neither needs to be root nor
//! changes the system, and answers the same whether or not a server is installed. The libraries
//! come along; what every such system has anyway (the C library, PAM, ...) is left out, and so is
//! LLVM (100 MB), which is why the server runs with `jit=off`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::LOCAL_LIMIT;
use super::NETWORK_LIMIT;
use super::entries;
use crate::sandbox::command::run;
use crate::sandbox::error::ProcessError;
use crate::sandbox::surroundings::Surroundings;

/// Starts of library packages that are left out.
const LEFT_OUT: [&str; 17] = [
    "libc6",
    "libc-bin",
    "libc-l10n",
    "libllvm",
    "libz3",
    "libperl",
    "libgdbm",
    "libdb5",
    "libpam",
    "libsemanage",
    "libsepol",
    "libaudit",
    "libcap-ng",
    "libselinux",
    "libacl",
    "libmd0",
    "libbz2",
];

/// Unpacks Debian's current server into `dir`.
pub(super) fn unpack(at: &Surroundings, dir: &Path) -> Result<(), String> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        if at.on_path(program).is_empty() {
            return Err(format!("there is no {program}"));
        }
    }
    unpack_with(&AptFetch::prepare(dir).map_err(|error| error.to_string())?, dir)
        .map_err(|error| error.in_one_line())?
}

/// Where the libraries of the unpacked packages lie below `dir`; none for other fetches.
pub(super) fn libraries(dir: &Path) -> Vec<PathBuf> {
    // The name of the last step is the platform, such as `x86_64-linux-gnu`.
    ["usr/lib", "lib"]
        .iter()
        .flat_map(|lib| entries(&dir.join(lib)))
        .filter(|path| path.is_dir() && path.to_string_lossy().contains("-linux-gnu"))
        .collect()
}

fn unpack_with(apt: &AptFetch, dir: &Path) -> Result<Result<(), String>, ProcessError> {
    run(apt.command("apt-get").args(["-qq", "update"]), NETWORK_LIMIT)?;
    let depends = run(apt.command("apt-cache").args(["depends", "postgresql"]), LOCAL_LIMIT)?;
    let Some((server, client)) = server_packages(&depends) else {
        return Ok(Err("its lists have no package postgresql".to_owned()));
    };
    let simulated = run(
        apt.command("apt-get")
            .args(["install", "-s", "--no-install-recommends"])
            .args([&server, &client]),
        LOCAL_LIMIT,
    )?;
    let packages = wanted(&simulated, &server);
    let download = &mut apt.command("apt-get");
    run(
        download.current_dir(&apt.packages).args(["-qq", "download"]).args(packages),
        NETWORK_LIMIT,
    )?;
    let Ok(files) = apt.packages.read_dir() else {
        return Ok(Err("the packages are gone".to_owned()));
    };
    for file in files.flatten() {
        run(Command::new("dpkg-deb").arg("-x").arg(file.path()).arg(dir), LOCAL_LIMIT)?;
    }
    // The lists and packages take twice the space of the server.
    Ok(fs::remove_dir_all(&apt.home).map_err(|error| error.to_string()))
}

/// An apt with lists, caches and a status of its own.
struct AptFetch {
    home: PathBuf,
    packages: PathBuf,
    options: Vec<OsString>,
}

impl AptFetch {
    fn prepare(dir: &Path) -> std::io::Result<Self> {
        let home = dir.join("apt");
        let [lists, cache, packages] = ["lists", "cache", "packages"].map(|name| home.join(name));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        fs::create_dir_all(&packages)?;
        let status = home.join("status");
        fs::write(&status, "")?;
        let mut options = Vec::new();
        let paths = [
            ("Dir::State::Lists", &lists),
            ("Dir::Cache", &cache),
            ("Dir::State::status", &status),
        ];
        for (name, path) in paths {
            let mut option = OsString::from(format!("{name}="));
            option.push(path);
            options.push(option);
        }
        options.push("Debug::NoLocking=1".into());
        // apt as root would download as user _apt, who cannot write here.
        options.push("APT::Sandbox::User=root".into());
        Ok(Self { home, packages, options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The packages behind the metapackage `postgresql`, from `apt-cache depends`.
fn server_packages(depends: &str) -> Option<(String, String)> {
    depends.lines().find_map(|line| {
        let server = line.trim().strip_prefix("Depends: ")?;
        let version = server.strip_prefix("postgresql-")?;
        version
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| (server.to_owned(), format!("postgresql-client-{version}")))
    })
}

/// What of a simulated installation is needed to run the server without installing it.
fn wanted<'a>(simulated: &'a str, server: &str) -> Vec<&'a str> {
    let is_wanted = |name: &&str| {
        let is_library = name.starts_with("lib")
            && !name.ends_with("-perl")
            && !LEFT_OUT.iter().any(|start| name.starts_with(start));
        let is_client = name
            .strip_prefix("postgresql-client-")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        is_library || is_client || *name == server
    };
    simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .filter(is_wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_server() {
        let depends = "postgresql\n  Depends: postgresql-common\n  Depends: postgresql-15\n\
            \x20 Suggests: postgresql-doc\n";
        assert_eq!(
            server_packages(depends),
            Some(("postgresql-15".to_owned(), "postgresql-client-15".to_owned()))
        );
        assert_eq!(server_packages("N: Unable to locate package postgresql"), None);
    }

    #[test]
    fn only_the_server_its_client_and_their_libraries_are_unpacked() {
        let simulated = "NOTE: This is only a simulation!\n\
            Inst libc6 (2.36 Debian:12/stable [amd64])\n\
            Inst libicu72 (72.1-3 Debian:12/stable [amd64])\n\
            Inst libllvm14 (1:14 Debian:12/stable [amd64])\n\
            Inst libjson-perl (4 Debian:12/stable [all])\n\
            Inst perl-base (5 Debian:12/stable [amd64])\n\
            Inst postgresql-client-common (248 Debian:12/stable [all])\n\
            Inst postgresql-client-15 (15.18 Debian:12/stable [amd64])\n\
            Inst postgresql-common (248 Debian:12/stable [all])\n\
            Inst postgresql-15 (15.18 Debian:12/stable [amd64])\n\
            Conf libicu72 (72.1-3 Debian:12/stable [amd64])\n";
        let packages = wanted(simulated, "postgresql-15");
        assert_eq!(packages, ["libicu72", "postgresql-client-15", "postgresql-15"]);
    }
}
