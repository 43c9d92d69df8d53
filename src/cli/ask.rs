//! Sends HTTP requests to the admin listener of the running hookhold process.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use hookhold::config::AdminConfig;
use http::StatusCode;

use super::Context;

/// Returns the URL of the admin listener: `named` if the operator passes a URL, otherwise the configured address on
/// this machine.
pub(super) fn listener(context: &Context, named: Option<String>) -> Result<String, Box<dyn Error>> {
    if let Some(named) = named {
        return Ok(named.trim_end_matches('/').to_owned());
    }
    let listen = AdminConfig::load(&context.file()?)?.listen;
    let local = SocketAddr::from(([127, 0, 0, 1], listen.port()));
    Ok(format!("http://{}", if listen.ip().is_unspecified() { local } else { listen }))
}

/// Sends a GET request for `path` to the admin listener at `base`, and returns the response body. If the status code is not
/// 200, returns an error that contains the response body.
pub(super) fn page(base: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = runtime.block_on(async {
        let client = reqwest::Client::builder().http1_only().no_proxy().timeout(TIMEOUT).build()?;
        let response = client.get(format!("{base}{path}")).send().await?;
        Ok((response.status(), response.text().await?))
    });
    let no_response = |error: reqwest::Error| {
        let causes = super::causes(&error);
        format!("{base}: expected a response from hookhold, found none ({causes}); start `hookhold run`, or set --url")
    };
    match response.map_err(no_response)? {
        (StatusCode::OK, page) => Ok(page),
        (status, text) => Err(format!("{base}: expected status 200, found {status}: {}", text.trim_end()).into()),
    }
}

/// Time limit for a response from the admin listener. The limit is long, because the running process may read its configuration
/// and its secrets before it responds.
const TIMEOUT: Duration = Duration::from_secs(30);
