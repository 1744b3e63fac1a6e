//! The network: blocking HTTP(S) with rustls. The only file that knows the HTTP client.
//!
//! The program is linked static, so names are resolved without the C library's plug-ins, and the certificates of the system
//! are read from `SSL_CERT_FILE` or their usual bundle; without one, those compiled in are used.

use std::{
    cell::OnceCell,
    error::Error as StdError,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use reqwest::{
    Proxy, Url,
    blocking::{Client, RequestBuilder},
    header::{ACCEPT_ENCODING, RANGE},
    redirect,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{
    config::Network,
    limits::MAX_REDIRECTS,
    ports::{Request, Response, Started, Transport, TransportError},
};

const SYSTEM_CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const USER_AGENT: &str = concat!("roro-updater/", env!("CARGO_PKG_VERSION"));
const RESOLVER_CONFIGURATION: &str = "/etc/resolv.conf";

/// The client, made when it is first needed.
pub struct Http {
    network: Network,
    client: OnceCell<Client>,
}

impl Http {
    /// A client with these timeouts and this proxy. Without one, `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self { network, client: OnceCell::new() }
    }

    fn client(&self) -> Result<&Client, TransportError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.build()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Without a configuration of its own the resolver would ask servers that nobody named.
    fn check_names(&self, url: &Url) -> Result<(), TransportError> {
        let is_name = url.domain().is_some_and(|name| name != "localhost");
        if is_name && self.network.proxy.is_none() && !Path::new(RESOLVER_CONFIGURATION).exists() {
            let source = format!("names cannot be resolved, there is no {RESOLVER_CONFIGURATION}").into();
            return Err(TransportError::Network { source });
        }
        Ok(())
    }

    fn build(&self) -> Result<Client, TransportError> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .http1_only()
            .user_agent(USER_AGENT)
            .referer(false)
            .connect_timeout(Duration::from_secs(self.network.connect_timeout_seconds))
            // Of each read, not of the whole transfer; the minimum rate is measured above this layer.
            .timeout(Duration::from_secs(self.network.read_timeout_seconds))
            .redirect(redirect::Policy::custom(|attempt| {
                let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
                if attempt.previous().len() > MAX_REDIRECTS {
                    attempt.error("too many redirects")
                } else if from_https && attempt.url().scheme() != "https" {
                    attempt.error("redirect from https to http")
                } else {
                    attempt.follow()
                }
            }));
        if let Some(proxy) = &self.network.proxy {
            let proxy =
                Proxy::all(proxy).map_err(|source| refused("proxy cannot be used", &source.without_url()))?;
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_env()));
        }
        builder.build().map_err(|source| refused("HTTP cannot be set up", &source))
    }
}

impl Http {
    fn prepared(&self, request: &Request<'_>) -> Result<RequestBuilder, TransportError> {
        let url = Url::parse(request.url).map_err(|source| TransportError::Refused {
            detail: format!("address cannot be read: {source}"),
        })?;
        self.check_names(&url)?;
        Ok(self
            .client()?
            .get(url)
            .header(RANGE, format!("bytes={}-{}", request.first, request.last))
            .header(ACCEPT_ENCODING, "identity"))
    }
}

impl Transport for Http {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        answer(self.prepared(request)?.send())
    }

    fn start(&self, request: &Request<'_>) -> Option<Started> {
        let prepared = self.prepared(request).ok()?;
        let (done, sent) = mpsc::sync_channel(1);
        let send = move || {
            // Where nobody waits any more, the connection is closed with the answer.
            let _ = done.send(prepared.send());
        };
        thread::Builder::new().name("request".into()).spawn(send).ok()?;
        Some(Box::new(move || match sent.recv() {
            Ok(sent) => answer(sent),
            Err(error) => Err(TransportError::Network { source: error.into() }),
        }))
    }
}

/// One question of a health check: directly, without a proxy; a redirect is an answer like any other. Each step (to connect, to get the
/// head, one read of the body) takes at most `step`.
pub fn ask(url: &str, step: Duration) -> Result<Response, TransportError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls()?)
        .http1_only()
        .user_agent(USER_AGENT)
        .no_proxy()
        .connect_timeout(step)
        .timeout(step)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|source| refused("HTTP cannot be set up", &source))?;
    answer(client.get(url).header(ACCEPT_ENCODING, "identity").send())
}

/// A server for people and for logs: scheme, host and port. The rest of an address may hold credentials, and what is told of it ends in
/// records, histories and on consoles.
#[must_use]
pub fn server_of(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{}://{host}:{port}", url.scheme()),
            (Some(host), None) => format!("{}://{host}", url.scheme()),
            (None, _) => format!("{}:", url.scheme()),
        },
        Err(_) => "an address that cannot be read".into(),
    }
}

fn refused(what: &str, source: &dyn StdError) -> TransportError {
    TransportError::Refused { detail: format!("{what}: {source}") }
}

fn tls() -> Result<rustls::ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| refused("TLS cannot be set up", &source))?
        .with_root_certificates(root_certificates())
        .with_no_client_auth())
}

fn answer(sent: reqwest::Result<reqwest::blocking::Response>) -> Result<Response, TransportError> {
    // Whatever is told of an error, the address with its credentials is not.
    match sent.map_err(reqwest::Error::without_url) {
        Ok(response) => Ok(Response {
            status: response.status().as_u16(),
            headers: response
                .headers()
                .iter()
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
                .collect(),
            body: Box::new(response),
        }),
        Err(error) if error.is_redirect() || error.is_builder() => {
            Err(TransportError::Refused { detail: chain(&error) })
        }
        // The next attempt would meet the same certificate.
        Err(error) if chain(&error).contains("invalid peer certificate") => {
            Err(TransportError::Refused { detail: in_short(&error) })
        }
        Err(error) => Err(TransportError::Network { source: in_short(&error).into() }),
    }
}

/// The client's chain repeats the address and its own layers: the first cause says it all.
fn in_short(error: &reqwest::Error) -> String {
    let mut first: &dyn StdError = error;
    let mut names = false;
    while let Some(source) = first.source() {
        first = source;
        names |= first.to_string().contains("resolving DNS");
    }
    match (names, error.is_timeout()) {
        (true, _) => "the server's name cannot be resolved".into(),
        (false, true) => "no answer in time".into(),
        (false, false) => first.to_string(),
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn root_certificates() -> rustls::RootCertStore {
    let mut store = rustls::RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    for path in named.into_iter().chain(SYSTEM_CERTIFICATES.map(PathBuf::from)) {
        let Ok(certificates) = CertificateDer::pem_file_iter(&path) else { continue };
        // One certificate that cannot be read must not take the others away.
        store.add_parsable_certificates(certificates.flatten());
        if !store.is_empty() {
            return store;
        }
    }
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_the_server_is_told() {
        for (url, expected) in [
            ("https://user:token@updates.example/a/b?token=secret#x", "https://updates.example"),
            ("http://127.0.0.1:8080/x.roro", "http://127.0.0.1:8080"),
            ("https://[::1]:8443/?token=secret", "https://[::1]:8443"),
            ("user:token@host", "user:"),
            ("//user:token@host", "an address that cannot be read"),
        ] {
            assert_eq!(server_of(url), expected);
        }
    }
}
