//! What the OpenAPI document says beside the routes: its title, and the shape of problems.

#[cfg(test)]
mod tests;

use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

/// The frame that the routes are put into.
#[derive(OpenApi)]
#[openapi(info(
    title = "Kaeru",
    description = "What happens to each business event of a mesh, and what must be rolled back.",
    license(name = "Apache-2.0", identifier = "Apache-2.0"),
))]
pub(crate) struct Frame;

/// A problem (RFC 9457). Its type is one of those in `docs/problems.md`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `urn:kaeru:problem:` and its name.
    #[schema(example = "urn:kaeru:problem:invalid-parameter")]
    r#type: String,
    /// Short, the same each time.
    title: String,
    /// The HTTP status.
    status: u16,
    /// This case in words.
    detail: String,
}
