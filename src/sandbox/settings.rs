//! The settings of a cluster, as the text of a configuration file.

use std::path::Path;

/// What is the same in every cluster; what a caller sets comes later and wins.
const SETTINGS: [(&str, &str); 10] = [
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("shared_buffers", "16MB"),
    // In our directory: /dev/shm may be tiny, and files there would outlive a kill.
    ("dynamic_shared_memory_type", "mmap"),
    ("jit", "off"), // its library is left out of fetched servers
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("lc_messages", "C"), // the log is searched for messages
];

/// Quick and unsafe in a power cut, which throw-away data can afford. `synchronous_commit` stays
/// on: without it a commit waits up to 0.2 s for the WAL writer before replication can see it.
const VOLATILE: [(&str, &str); 2] = [("fsync", "off"), ("full_page_writes", "off")];

/// Settings by name. The last one of a name wins, as in the file.
#[derive(Clone, Debug)]
pub(super) struct SandboxSettings(Vec<(String, String)>);

impl SandboxSettings {
    /// Those of every cluster, with the socket in `socket_dir`.
    pub(super) fn new(is_durable: bool, socket_dir: &Path) -> Self {
        let mut settings = Self(Vec::new());
        let safety = if is_durable { &[][..] } else { &VOLATILE[..] };
        for (name, value) in SETTINGS.iter().chain(safety) {
            settings.set(name, value);
        }
        settings.set("unix_socket_directories", &socket_dir.to_string_lossy());
        settings
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// In the format of `postgresql.conf`.
    pub(super) fn file_text(&self) -> String {
        self.0.iter().map(|(name, value)| line(name, value)).collect()
    }
}

fn line(name: &str, value: &str) -> String {
    let quoted = value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n");
    format!("{name} = '{quoted}'\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_the_configuration_file_wants_it() {
        let cases = [
            ("64kB", "name = '64kB'\n"),
            ("it's", "name = 'it''s'\n"),
            ("a\\b", "name = 'a\\\\b'\n"),
            ("a\nb", "name = 'a\\nb'\n"),
        ];
        for (value, expected) in cases {
            assert_eq!(line("name", value), expected, "case: {value}");
        }
    }

    #[test]
    fn durable_settings_turn_nothing_off_and_later_ones_come_last() {
        let dir = Path::new("/tmp/x");
        assert!(SandboxSettings::new(false, dir).file_text().contains("fsync = 'off'"));
        let mut settings = SandboxSettings::new(true, dir);
        assert!(!settings.file_text().contains("fsync"));
        settings.set("wal_level", "replica");
        assert!(settings.file_text().ends_with("wal_level = 'replica'\n"));
    }
}
