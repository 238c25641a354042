//! Failures as responses: a status, and the [`Failure`] as JSON.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use rectify_protocol::{Failure, Kind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A failure on its way out.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) failure: Failure,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = if status == StatusCode::NOT_FOUND { Kind::NotFound } else { Kind::BadInput };
        Self { status, failure: Failure::new(kind, message) }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            Kind::BadInput | Kind::Harmful => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Device | Kind::Unfinished | Kind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, failure }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.failure)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        response
    }
}

/// The value that a body holds.
///
/// # Errors
///
/// When it holds another. A list is never taken for a value with named fields, as serde would by the order of fields.
pub(super) fn read<T: DeserializeOwned + Serialize>(what: &str, body: &[u8]) -> Result<T, Refusal> {
    let wrong =
        |problem: &dyn std::fmt::Display| Refusal::new(StatusCode::BAD_REQUEST, format!("not {what}: {problem}"));
    let value: T = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    let said: Value = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    let meant = serde_json::to_value(&value).map_err(|error| wrong(&error))?;
    match list_for_object(&said, &meant) {
        Some(place) => Err(wrong(&format_args!("{place} is a list; an object with named fields is expected"))),
        None => Ok(value),
    }
}

/// Where a list was said and an object meant.
fn list_for_object(said: &Value, meant: &Value) -> Option<String> {
    match (said, meant) {
        (Value::Array(_), Value::Object(_)) => Some("the value".into()),
        (Value::Object(said), Value::Object(meant)) => said.iter().find_map(|(name, said)| {
            let place = list_for_object(said, meant.get(name)?)?;
            Some(if place == "the value" { name.clone() } else { format!("{name}.{place}") })
        }),
        (Value::Array(said), Value::Array(meant)) => {
            said.iter().zip(meant).find_map(|(said, meant)| list_for_object(said, meant))
        }
        _ => None,
    }
}

/// What is not in the table of routes.
pub(super) async fn no_such_route() -> Refusal {
    Refusal::not_found("there is no such route")
}
