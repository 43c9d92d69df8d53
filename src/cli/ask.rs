//! Asks the running process, at its admin listener, what only it can know.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use hookhold::config::AdminConfig;
use http::StatusCode;

use super::Context;

/// The admin listener: the one named, else the one of the configuration, on this machine.
pub fn listener(context: &Context, named: Option<String>) -> Result<String, Box<dyn Error>> {
    if let Some(named) = named {
        return Ok(named.trim_end_matches('/').to_owned());
    }
    let listen = AdminConfig::load(&context.file()?)?.listen;
    let here = SocketAddr::from(([127, 0, 0, 1], listen.port()));
    Ok(format!("http://{}", if listen.ip().is_unspecified() { here } else { listen }))
}

/// The page at `path` of the admin listener `base`. What it says instead of a page is the error.
pub fn page(base: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        let client = reqwest::Client::builder().http1_only().no_proxy().timeout(PATIENCE).build()?;
        let answer = client.get(format!("{base}{path}")).send().await?;
        Ok((answer.status(), answer.text().await?))
    });
    match asked.map_err(|error: reqwest::Error| format!("{base}: {}", super::causes(&error)))? {
        (StatusCode::OK, page) => Ok(page),
        (status, said) => Err(format!("{base}: {status}: {}", said.trim_end()).into()),
    }
}

/// The process may read its file and its secrets meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
