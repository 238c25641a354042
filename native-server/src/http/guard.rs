//! What is checked before any handler sees a request.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{AppState, error::Refusal};

/// Refuses requests for another host, and bodies that are not JSON.
///
/// A stranger's page may point its own name at this machine (DNS rebinding); then `Host` is that name.
/// Asking for `application/json` makes browsers ask first before another origin's page may post, and nobody answers.
pub(super) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(request.uri().authority().map(|authority| authority.as_str()));
    if !host.is_some_and(|host| is_ours(host, state.0.settings.listen)) {
        let message = "this server answers to its own address and to localhost only";
        return Refusal::new(StatusCode::FORBIDDEN, message).into_response();
    }
    if request.method() == Method::POST && !is_json(&request) {
        let message = "the content type must be application/json";
        return Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    }
    next.run(request).await
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Whether a host with an optional port is this machine under an address of its own.
///
/// A server that listens on every address has no single one; it accepts every number, for only names can be rebound.
fn is_ours(host: &str, listen: IpAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(host, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == listen || listen.is_unspecified(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, listen: &str, expected: bool) {
        assert_eq!(is_ours(host, listen.parse().unwrap()), expected, "{host}");
    }

    #[test]
    fn a_host_is_an_address_of_this_machine() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1"] {
            check(host, "127.0.0.1", true);
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "", "[::1", "10.0.0.7"] {
            check(host, "127.0.0.1", false);
        }
        check("10.0.0.7:8080", "10.0.0.7", true);
        check("10.0.0.8:8080", "10.0.0.7", false);
        check("10.0.0.8:8080", "0.0.0.0", true);
        check("evil.example", "0.0.0.0", false);
    }
}
