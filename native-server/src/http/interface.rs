//! The description of the interface (OpenAPI 3.1), made of the handlers and the types that they take and give.

use rectify_protocol::Failure;
use utoipa::{
    IntoParams, IntoResponses, Modify, OpenApi,
    openapi::{
        RefOr,
        schema::{AdditionalProperties, Schema},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// What every answer has in common.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rectify",
        description = "Heavy runs and sessions on a server. On loopback nothing is asked for; on any other address every \
            request under /api shows the server's token. What changes something is sent as JSON and comes from the \
            server's own page or from a program.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(Failure)),
    security((), ("token" = [])),
    modifiers(&Token, &Strict),
    tags(
        (name = "jobs", description = "Heavy runs: what was asked for, how far it is, what it found"),
        (name = "machine", description = "What there is to run on, and with"),
        (name = "sessions", description = "A model of one's own, for a page"),
        (name = "sweeps", description = "Rows that are in the server's folder of sweeps"),
        (name = "operation", description = "For whoever runs the server"),
    )
)]
pub(super) struct Interface;

/// How a program shows the server's token.
struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// A value with one of several names has one of them and nothing else.
struct Strict;

impl Modify for Strict {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let Some(components) = &mut description.components else { return };
        for schema in components.schemas.values_mut() {
            let RefOr::T(Schema::OneOf(choice)) = schema else { continue };
            for one in &mut choice.items {
                if let RefOr::T(Schema::Object(named)) = one {
                    named.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
                }
            }
        }
    }
}

/// How every request may be refused.
#[derive(IntoResponses)]
pub(super) enum Refused {
    /// What was asked for is wrong or not there; the message says what.
    #[response(status = "4XX")]
    #[expect(dead_code, reason = "it describes")]
    Asker(Failure),
    /// The server cannot do it, or not now.
    #[response(status = "5XX")]
    #[expect(dead_code, reason = "it describes")]
    Server(Failure),
}

/// A job.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct JobId {
    /// The job's id.
    id: String,
}

/// A file of a folder.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct FileName {
    /// The file's name, as it is listed.
    file: String,
}

/// A session.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct SessionKey {
    /// The session's key.
    key: String,
}

/// A sweep.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct SweepName {
    /// The name of its folder.
    name: String,
}
