//! Sends HTTP requests to the admin listener of the running hookhold process.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use hookhold::config::AdminConfig;
use hookhold::secret::Secret;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Context;

/// The admin listener of a running process.
pub(super) struct RunningProcess {
    /// URL of the listener, without a final slash.
    pub(super) url: String,
    token: Option<Secret>,
}

impl RunningProcess {
    /// Finds the admin listener. Its URL is `named` if the operator passes a URL, otherwise the configured address on this
    /// machine. Its token is the configured one. If the operator passes a URL, the configuration may be missing or invalid: the
    /// request then has no token.
    pub(super) fn find(context: &Context, named: Option<String>) -> Result<RunningProcess, Box<dyn Error>> {
        let configured = context.file().map_err(Box::from).and_then(|file| Ok(AdminConfig::load(&file)?));
        let AdminConfig { listen, token, .. } = match (configured, &named) {
            (Err(error), None) => return Err(error),
            (configured, _) => configured.unwrap_or_default(),
        };
        let local = SocketAddr::from(([127, 0, 0, 1], listen.port()));
        let own_url = || format!("http://{}", if listen.ip().is_unspecified() { local } else { listen });
        let url = named.map_or_else(own_url, |named| named.trim_end_matches('/').to_owned());
        Ok(RunningProcess { url, token })
    }

    /// Sends a GET request for `path`, and returns the response body. If the status code is not 200, returns an error that
    /// contains the response body.
    pub(super) fn page(&self, path: &str) -> Result<String, Box<dyn Error>> {
        self.ask(Method::GET, path, None)
    }

    /// Parses a page in JSON. If the page is from another server than hookhold, the error says so.
    pub(super) fn parse<T: DeserializeOwned>(&self, page: &str) -> Result<T, Box<dyn Error>> {
        let base = &self.url;
        let other = |_| format!("{base}: expected hookhold's admin listener, found another server; set --url to the listener");
        Ok(serde_json::from_str(page).map_err(other)?)
    }

    /// Sends a POST request with a body in JSON for `path`, and returns the response body. If the status code is not 200, returns
    /// an error that contains the response body.
    pub(super) fn change(&self, path: &str, body: &Value) -> Result<String, Box<dyn Error>> {
        self.ask(Method::POST, path, Some(body.to_string()))
    }

    fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<String, Box<dyn Error>> {
        let base = &self.url;
        let mut headers = HeaderMap::new();
        if let Some(Secret { bytes, .. }) = &self.token {
            let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", &bytes[..]].concat())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let response = runtime.block_on(async {
            let client = reqwest::Client::builder().http1_only().no_proxy().timeout(TIMEOUT).build()?;
            let response =
                client.request(method, format!("{base}{path}")).headers(headers).body(body.unwrap_or_default()).send().await?;
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
}

/// Time limit for a response from the admin listener. The limit is long, because the running process may read its configuration
/// and its secrets before it responds.
const TIMEOUT: Duration = Duration::from_secs(30);
