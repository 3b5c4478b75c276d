//! The hosts of a connection URL, one by one: `check` looks at each server of a list, where a connection
//! takes the first that will do.

use tokio_postgres::config::Host;

use crate::config::settings::ServerSettings;
use crate::config::settings::SessionAttrs;

/// PostgreSQL's port.
const PORT: u16 = 5432;

impl ServerSettings {
    /// Each host alone, whatever kind of server it is, with how it is shown.
    pub fn each_host(&self) -> Vec<(String, Self)> {
        let params = &self.params;
        let (hosts, addresses, ports) =
            (params.get_hosts(), params.get_hostaddrs(), params.get_ports());
        let count = hosts.len().max(addresses.len());
        let alone = |index: usize| {
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(PORT);
            let mut one = tokio_postgres::Config::new();
            one.port(port);
            let mut shown = String::new();
            if let Some(address) = addresses.get(index) {
                one.hostaddr(*address);
                shown = format!("{address}:{port}");
            }
            match hosts.get(index) {
                Some(Host::Tcp(name)) => {
                    one.host(name);
                    shown = format!("{name}:{port}");
                }
                Some(Host::Unix(folder)) => {
                    one.host_path(folder);
                    shown = format!("{} port {port}", folder.display());
                }
                None => {}
            }
            self.copy_into(&mut one);
            (shown, Self { params: one, attrs: SessionAttrs::Any, ..self.clone() })
        };
        (0..count).map(alone).collect()
    }

    /// All but the hosts.
    fn copy_into(&self, to: &mut tokio_postgres::Config) {
        let from = &self.params;
        if let Some(user) = from.get_user() {
            to.user(user);
        }
        if let Some(password) = from.get_password() {
            to.password(password);
        }
        if let Some(database) = from.get_dbname() {
            to.dbname(database);
        }
        if let Some(options) = from.get_options() {
            to.options(options);
        }
        if let Some(name) = from.get_application_name() {
            to.application_name(name);
        }
        if let Some(limit) = from.get_connect_timeout() {
            to.connect_timeout(*limit);
        }
        to.channel_binding(from.get_channel_binding());
    }
}

#[cfg(test)]
mod tests {
    use crate::config::postgres_url;
    use crate::config::settings::SessionAttrs;

    #[test]
    fn each_host_of_a_list_stands_alone_with_all_else() {
        let url = "postgres://me:secret@one,two:6543/app?target_session_attrs=read-write";
        let server = postgres_url::parse(url, &|_| None).unwrap();
        let hosts = server.each_host();
        let shown: Vec<&str> = hosts.iter().map(|(shown, _)| shown.as_str()).collect();
        assert_eq!(shown, ["one:5432", "two:6543"]);
        for (_, one) in &hosts {
            assert_eq!(one.params.get_hosts().len(), 1);
            assert_eq!(one.params.get_password(), Some(b"secret".as_slice()));
            assert_eq!(one.params.get_dbname(), Some("app"));
            assert_eq!(one.attrs, SessionAttrs::Any);
        }
    }
}
