//! Gets the tokens for the login with OAUTHBEARER from a token endpoint, with OAuth 2.0 client credentials (RFC 6749, section 4.4).
//! librdkafka could do so itself only if it were linked with libcurl. The properties have librdkafka's names and meaning, and
//! librdkafka never sees them.

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::client::OAuthToken;
use reqwest::{Certificate, Response, Url, redirect};
use serde::Deserialize;
use serde_json::Value;

use crate::clock::{Clock, SystemClock};

/// Token endpoint with the credentials of the client.
#[derive(Clone)]
pub(super) struct TokenSource {
    endpoint: Url,
    client_id: String,
    client_secret: String,
    scope: Option<String>,
    /// Path of a file with the certificate of the CA that has issued the endpoint's certificate; `None` if the operating system's
    /// CAs apply.
    ca: Option<String>,
}

/// Successful response of a token endpoint (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    /// Lifetime of the token in seconds.
    expires_in: Option<u64>,
}

/// Claims of a token that is a JSON Web Token (RFC 7519, section 4.1). A token of another kind has none of them.
#[derive(Default, Deserialize)]
struct TokenClaims {
    sub: Option<String>,
    /// Unix time at which the token expires, in seconds.
    exp: Option<f64>,
}

/// Returns true if hookhold itself uses the property, so that librdkafka must not get it.
pub(super) fn is_own_property(name: &str) -> bool {
    PROPERTIES.contains(&name)
}

/// Checks one property that [`is_own_property`] names. Returns an error text if the value is invalid, else `None`.
pub(super) fn check_property(name: &str, value: &str) -> Option<String> {
    match name {
        METHOD if !value.eq_ignore_ascii_case("oidc") => Some(format!("expected oidc, found {value:?}")),
        ENDPOINT => endpoint(value).err(),
        _ if value.is_empty() => Some("expected a text, found an empty one".to_owned()),
        _ => None,
    }
}

/// Reads the URL of a token endpoint. The request contains the client's secret, so only an endpoint on this machine may do without
/// TLS.
fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("expected an absolute URL, found one that is invalid ({error})"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        _ => Err("expected a URL that begins with https://, or a server on this machine".to_owned()),
    }
}

impl TokenSource {
    /// Returns the token endpoint that the properties in `[kafka]` describe; `None` if hookhold logs in without tokens. The error
    /// names the property that is missing or invalid.
    pub(super) fn from_properties(properties: &[(String, String)]) -> Result<Option<TokenSource>, String> {
        let value = |name: &str| properties.iter().find(|(property, _)| property == name).map(|(_, value)| value.clone());
        if value(METHOD).is_none() {
            return Ok(None);
        }
        let required = |name: &str| value(name).ok_or_else(|| format!("{name}: expected a value, found nothing"));
        Ok(Some(TokenSource {
            endpoint: endpoint(&required(ENDPOINT)?).map_err(|error| format!("{ENDPOINT}: {error}"))?,
            client_id: required(CLIENT_ID)?,
            client_secret: required(CLIENT_SECRET)?,
            scope: value(SCOPE),
            ca: value(CA),
        }))
    }

    /// Gets a token from the endpoint. Blocks for at most [`TIMEOUT`]. Must not be called on a thread of a tokio runtime.
    pub(super) fn fetch(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (status, body) = runtime.block_on(self.ask()).map_err(|error| format!("{}: {error}", self.endpoint))?;
        if status != StatusCode::OK {
            return Err(format!("{}: expected status 200, found {status}{}", self.endpoint, reported_error(&body)).into());
        }
        let response: TokenResponse = serde_json::from_slice(&body)
            .map_err(|_| format!("{}: expected JSON with access_token, found another response", self.endpoint))?;
        let claims = claims(&response.access_token).unwrap_or_default();
        let from_now = |seconds: u64| SystemClock.now().0.saturating_add(seconds.saturating_mul(1000)) as i64;
        let expires_ms = claims.exp.map(|exp| (exp * 1000.0) as i64).or_else(|| response.expires_in.map(from_now));
        let lifetime_ms =
            expires_ms.ok_or_else(|| format!("{}: expected expires_in or a token with exp, found neither", self.endpoint))?;
        let principal_name = claims.sub.unwrap_or_else(|| self.client_id.clone());
        Ok(OAuthToken { token: response.access_token, principal_name, lifetime_ms })
    }

    /// Sends the request, and returns the status and the beginning of the body.
    async fn ask(&self) -> Result<(StatusCode, Vec<u8>), String> {
        let mut client = reqwest::Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT);
        if let Some(path) = &self.ca {
            let pem = fs::read(path).map_err(|error| format!("{CA}: cannot read {path}: {error}"))?;
            let certificates = Certificate::from_pem_bundle(&pem);
            let certificates = certificates.map_err(|_| format!("{CA}: expected certificates in PEM, found none in {path}"))?;
            client = client.tls_certs_merge(certificates);
        }
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.scope {
            form += &format!("&scope={}", utf8_percent_encode(scope, NON_ALPHANUMERIC));
        }
        let request = client.build().map_err(|error| causes(&error))?.post(self.endpoint.clone());
        let request = request.basic_auth(&self.client_id, Some(&self.client_secret));
        let request = request.header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request.body(form).send().await.map_err(|error| causes(&error))?;
        let status = response.status();
        Ok((status, body(response).await.map_err(|error| causes(&error))?))
    }
}

/// Reads at most [`MAX_BODY`] bytes of a body.
async fn body(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY - body.len())]);
        if body.len() == MAX_BODY {
            break;
        }
    }
    Ok(body)
}

/// Returns the claims of a JSON Web Token without a check of its signature, which only the brokers can check. Returns `None` for a
/// token of another kind.
fn claims(token: &str) -> Option<TokenClaims> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Returns the error code and the description in the body of an error response (RFC 6749, section 5.2), or an empty text.
fn reported_error(body: &[u8]) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return String::new() };
    let is_plain = |letter: &char| !letter.is_control();
    let text =
        |name: &str| fields.get(name)?.as_str().map(|text| text.chars().filter(is_plain).take(MAX_ERROR).collect::<String>());
    let parts: Vec<String> = ["error", "error_description"].into_iter().filter_map(text).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(": ")) }
}

/// Returns the texts of an error and of its causes. They do not contain the client's secret.
fn causes(error: &reqwest::Error) -> String {
    let chain = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    let mut causes: Vec<String> = chain.map(|error| error.to_string().replace('\0', "")).collect();
    causes.dedup();
    causes.join(": ")
}

/// Time limit for one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Number of bytes of a response that hookhold reads. A token has a few KiB.
const MAX_BODY: usize = 256 << 10;
/// Number of characters of each part of an endpoint's error that hookhold shows.
const MAX_ERROR: usize = 200;

const METHOD: &str = "sasl.oauthbearer.method";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const CLIENT_ID: &str = "sasl.oauthbearer.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const CA: &str = "https.ca.location";
const PROPERTIES: [&str; 6] = [METHOD, ENDPOINT, CLIENT_ID, CLIENT_SECRET, SCOPE, CA];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_sent_only_over_tls_or_to_this_machine() {
        for url in ["https://id.example.com/token", "http://127.0.0.1:8080/token", "http://localhost/token", "http://[::1]/t"] {
            assert_eq!(check_property(ENDPOINT, url), None, "{url}");
        }
        for url in ["http://id.example.com/token", "ftp://127.0.0.1/", "id.example.com", ""] {
            assert!(check_property(ENDPOINT, url).is_some(), "{url}");
        }
    }

    #[test]
    fn the_claims_of_a_token_are_read_if_it_has_any() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"hookhold","exp":1700000000,"iss":"x"}"#);
        let claims = claims(&format!("e30.{payload}.c2ln")).expect("claims");
        assert_eq!((claims.sub.as_deref(), claims.exp), (Some("hookhold"), Some(1_700_000_000.0)));
        for opaque in ["", "abc", "a.b.c", "a.%.c"] {
            assert!(super::claims(opaque).is_none(), "{opaque}");
        }
    }

    #[test]
    fn an_error_of_the_endpoint_is_shown_briefly() {
        let body = br#"{"error":"invalid_client","error_description":"unknown\nclient"}"#;
        assert_eq!(reported_error(body), " (invalid_client: unknownclient)");
        assert_eq!(reported_error(b"<html>"), "");
    }
}
