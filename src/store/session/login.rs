//! Who logs in, and with which password, at this moment.
//!
//! A password is changed under a walhook that runs: what lies in a file is read anew for each
//! connection, never kept.

use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::config;
use crate::config::password_file;
use crate::config::password_file::PasswordLogin;
use crate::config::settings::ServerSettings;
use crate::config::toml_file::text_file;
use crate::store::error::StoreError;

/// A larger file holds more than a connection URL.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A file on a disk that hangs must not hold up the connection to a server that is well.
pub(crate) const READ_MAX: Duration = Duration::from_secs(3);

/// The server with the user and password that its file has at this moment. All else is as it was at
/// the start.
///
/// # Errors
/// [`StoreError::UrlFile`].
pub(crate) async fn current(server: &ServerSettings) -> Result<ServerSettings, StoreError> {
    let Some(file) = server.url_file.clone() else { return Ok(server.clone()) };
    let shown = file.display().to_string();
    let read = spawn_blocking(move || read_url(&file));
    let read = match tokio::time::timeout(READ_MAX, read).await {
        Ok(Ok(read)) => read,
        Ok(Err(_panicked)) => Err("cannot be read".to_owned()),
        Err(_) => Err(format!("was not read within {READ_MAX:?}")),
    };
    let new = read.map_err(|what| StoreError::UrlFile { file: shown, what })?;
    let mut current = server.clone();
    if let Some(user) = new.params.get_user() {
        current.params.user(user);
    }
    if let Some(password) = new.params.get_password() {
        current.params.password(password);
    }
    Ok(current)
}

fn read_url(file: &Path) -> Result<ServerSettings, String> {
    config::server(text_file::read(file, FILE_BYTES_MAX)?.trim())
}

/// The server with the password that the password file has for this host, if it has none of its own.
pub(crate) async fn for_host(server: &ServerSettings, host: &str, port: u16) -> ServerSettings {
    let mut server = server.clone();
    let Some(file) = server.password_file.clone() else { return server };
    if server.params.get_password().is_some() {
        return server;
    }
    let params = &server.params;
    let user = params.get_user().unwrap_or_default().to_owned();
    let database = params.get_dbname().unwrap_or(&user).to_owned();
    let host = host.to_owned();
    let find = spawn_blocking(move || {
        let login = PasswordLogin { host: &host, port, database: &database, user: &user };
        password_file::find(&file, login)
    });
    // What is wrong with the file is said when the server asks for a password.
    if let Ok(Ok(Ok(Some(password)))) = tokio::time::timeout(READ_MAX, find).await {
        server.params.password(password);
    }
    server
}
